//! Events, in the order in which they were recorded.

use airflow_serverless_api::{
    environment::EnvironmentName,
    event::{Event, EventKind},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlite_schema::row;

use super::{Result, Store, StoreError, decode, encode, from_word, query, word};

row! {
    struct Row {
        id: i64,
        kind: String,
        environment: String,
        data: String,
        created_at: DateTime<Utc>,
    }
}

impl TryFrom<Row> for Event {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            kind: from_word("kind of event", &row.kind)?,
            environment: from_word("environment name", &row.environment)?,
            data: decode("event", &row.data)?,
            created_at: row.created_at,
        })
    }
}

impl Store {
    pub async fn insert_event(
        &self,
        kind: EventKind,
        environment: &EnvironmentName,
        data: &Value,
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query("INSERT INTO event (kind, environment, data, created_at) VALUES (?, ?, ?, ?)")
            .bind(word("kind of event", &kind)?)
            .bind(environment.as_str())
            .bind(encode("event", data)?)
            .bind(now)
            .execute(&self.pool)
            .await
            .map_err(query("recording an event"))?;
        Ok(())
    }

    /// Returns the events after this one, oldest first.
    pub async fn events(&self, after: i64, environment: Option<&EnvironmentName>, limit: u32) -> Result<Vec<Event>> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM event WHERE id > $1 AND ($2 IS NULL OR environment = $2) ORDER BY id LIMIT $3",
        )
        .bind(after)
        .bind(environment.map(EnvironmentName::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(query("reading events"))?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// Returns the id of the newest event ever recorded; 0 if there was none.
    pub async fn newest_event(&self) -> Result<i64> {
        let id: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'event'")
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading events"))?;
        Ok(id.unwrap_or(0))
    }

    /// Removes events from before that time, and the oldest ones above this number.
    pub async fn forget_events(&self, before: DateTime<Utc>, kept: u32) -> Result<u64> {
        let removed = sqlx::query("DELETE FROM event WHERE created_at < $1 OR id <= (SELECT max(id) FROM event) - $2")
            .bind(before)
            .bind(kept)
            .execute(&self.pool)
            .await
            .map_err(query("forgetting old events"))?;
        Ok(removed.rows_affected())
    }
}
