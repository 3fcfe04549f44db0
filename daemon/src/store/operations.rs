//! Operations: long work and its steps.

use airflow_serverless_api::{
    environment::EnvironmentName,
    operation::{Operation, OperationKind, OperationState, Step},
};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{Result, Store, StoreError, decode, encode, from_word, query, word};

/// An operation that starts with the change it belongs to.
#[derive(Clone, Debug)]
pub struct NewOperation {
    pub id: Uuid,
    pub kind: OperationKind,
}

#[derive(FromRow)]
struct Row {
    id: String,
    kind: String,
    environment: String,
    state: String,
    steps: String,
    error: Option<String>,
    revision: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Operation {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: from_word("operation id", &row.id)?,
            kind: from_word("operation kind", &row.kind)?,
            environment: from_word("environment name", &row.environment)?,
            state: from_word("operation state", &row.state)?,
            steps: decode("operation's steps", &row.steps)?,
            error: row.error,
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl NewOperation {
    pub(super) async fn insert(
        &self,
        connection: &mut SqliteConnection,
        environment: &EnvironmentName,
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO operation (id, kind, environment, state, steps, revision, created_at, updated_at)
             VALUES (?, ?, ?, 'running', '[]', 1, ?, ?)",
        )
        .bind(self.id.to_string())
        .bind(word("operation kind", &self.kind)?)
        .bind(environment.as_str())
        .bind(now)
        .bind(now)
        .execute(connection)
        .await
        .map_err(query("creating an operation"))?;
        Ok(())
    }
}

impl Store {
    pub async fn operation(&self, id: Uuid) -> Result<Option<Operation>> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM operation WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading an operation"))?;
        row.map(Operation::try_from).transpose()
    }

    /// The newest operation on an environment.
    pub async fn latest_operation(&self, environment: &EnvironmentName) -> Result<Option<Operation>> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT * FROM operation WHERE environment = ? ORDER BY created_at DESC, rowid DESC LIMIT 1",
        )
        .bind(environment.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(query("reading an operation"))?;
        row.map(Operation::try_from).transpose()
    }

    /// Writes state, steps and error of an operation, one revision on.
    pub async fn save_operation(
        &self,
        id: Uuid,
        state: OperationState,
        steps: &[Step],
        error: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE operation SET state = ?, steps = ?, error = ?, updated_at = ?, revision = revision + 1 WHERE id = ?",
        )
        .bind(word("operation state", &state)?)
        .bind(encode("operation's steps", &steps)?)
        .bind(error)
        .bind(now)
        .bind(id.to_string())
        .execute(&self.pool)
        .await
        .map_err(query("saving an operation"))?;
        Ok(())
    }
}
