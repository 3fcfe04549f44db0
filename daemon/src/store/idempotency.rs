//! Responses to requests with an `Idempotency-Key`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlite_schema::row;

use super::{Result, Store, query};

/// How long keys are kept.
pub const KEYS_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

row! {
    /// The record of a key.
    #[derive(Debug)]
    pub struct Known {
        /// Hash of the first request with this key.
        pub request: String,
        /// Time of the first request.
        pub created_at: DateTime<Utc>,
        status: Option<u16>,
        location: Option<String>,
        body: Option<Vec<u8>>,
    }
}

/// A recorded response.
#[derive(Clone, Debug)]
pub struct KeptAnswer {
    pub status: u16,
    pub location: Option<String>,
    pub body: Vec<u8>,
}

impl Known {
    /// Returns the response, if the request has completed.
    pub fn answer(self) -> Option<KeptAnswer> {
        Some(KeptAnswer { status: self.status?, location: self.location, body: self.body.unwrap_or_default() })
    }
}

impl Store {
    /// Records the start of a request with this key, unless there is one; returns the record of the key.
    pub async fn begin_idempotent(&self, key: &str, request: &str, now: DateTime<Utc>) -> Result<Known> {
        let failed = query("recording an idempotency key");
        sqlx::query("INSERT INTO idempotency (key, request, created_at) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING")
            .bind(key)
            .bind(request)
            .bind(now)
            .execute(&self.pool)
            .await
            .map_err(&failed)?;
        sqlx::query_as("SELECT request, created_at, status, location, body FROM idempotency WHERE key = ?")
            .bind(key)
            .fetch_one(&self.pool)
            .await
            .map_err(&failed)
    }

    /// Records the response.
    pub async fn end_idempotent(&self, key: &str, answer: &KeptAnswer) -> Result<()> {
        sqlx::query("UPDATE idempotency SET status = ?, location = ?, body = ? WHERE key = ?")
            .bind(answer.status)
            .bind(&answer.location)
            .bind(&answer.body)
            .bind(key)
            .execute(&self.pool)
            .await
            .map_err(query("recording an answer"))?;
        Ok(())
    }

    /// Forgets a key whose request was refused.
    pub async fn forget_idempotent_key(&self, key: &str) -> Result<()> {
        let forget = sqlx::query("DELETE FROM idempotency WHERE key = ?").bind(key);
        forget.execute(&self.pool).await.map_err(query("forgetting an idempotency key"))?;
        Ok(())
    }

    /// Removes keys from before that time.
    pub async fn forget_idempotent(&self, before: DateTime<Utc>) -> Result<u64> {
        let removed = sqlx::query("DELETE FROM idempotency WHERE created_at < ?")
            .bind(before)
            .execute(&self.pool)
            .await
            .map_err(query("forgetting old idempotency keys"))?;
        Ok(removed.rows_affected())
    }
}
