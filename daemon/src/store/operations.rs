//! Operations: long-running work and its steps.

use airflow_serverless_api::{
    environment::EnvironmentName,
    operation::{ListOperations, Operation, OperationKind, OperationState, Step},
    page::limit,
};
use chrono::{DateTime, Utc};
use sqlite_schema::row;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Result, Statement, Store, StoreError, decode, encode, from_word, query, word};

/// An operation that starts together with a change.
#[derive(Clone, Debug)]
pub struct NewOperation {
    pub id: Uuid,
    pub kind: OperationKind,
}

/// The new state of an operation.
#[derive(Clone, Copy)]
pub struct OperationChange<'a> {
    pub id: Uuid,
    pub state: OperationState,
    pub steps: &'a [Step],
    pub error: Option<&'a str>,
}

row! {
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
    /// Inserts it; cancels an operation that is running on the environment.
    pub(super) async fn insert(
        &self,
        connection: &mut SqliteConnection,
        environment: &EnvironmentName,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let failed = query("creating an operation");
        sqlx::query(
            "UPDATE operation SET state = 'cancelled', error = 'a later change took its place', updated_at = ?,
                    revision = revision + 1
             WHERE environment = ? AND state = 'running'",
        )
        .bind(now)
        .bind(environment.as_str())
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
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
        .map_err(&failed)?;
        Ok(())
    }
}

impl OperationChange<'_> {
    /// Builds the update of a running operation, with the next revision. Has no effect if it has ended.
    pub(super) fn statement(self, now: DateTime<Utc>) -> Result<Statement> {
        let statement = sqlx::query(
            "UPDATE operation SET state = ?, steps = ?, error = ?, updated_at = ?, revision = revision + 1
             WHERE id = ? AND state = 'running'",
        );
        let (state, steps) = (word("operation state", &self.state)?, encode("operation's steps", &self.steps)?);
        let error = self.error.map(str::to_owned);
        Ok(statement.bind(state).bind(steps).bind(error).bind(now).bind(self.id.to_string()))
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

    /// Returns a page of the operations, newest first, and the total number.
    pub async fn operations(&self, wanted: &ListOperations) -> Result<(Vec<Operation>, i64)> {
        const MATCH: &str = "FROM operation WHERE ($1 IS NULL OR environment = $1) AND ($2 IS NULL OR state = $2)";
        let failed = query("listing operations");
        let environment = wanted.environment.as_ref().map(EnvironmentName::as_str);
        let state = wanted.state.map(|state| word("operation state", &state)).transpose()?;
        let page = format!("SELECT * {MATCH} ORDER BY created_at DESC, rowid DESC LIMIT $3 OFFSET $4");
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(page))
            .bind(environment)
            .bind(&state)
            .bind(limit(wanted.limit))
            .bind(wanted.offset.unwrap_or(0))
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
        let total = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) {MATCH}")))
            .bind(environment)
            .bind(&state)
            .fetch_one(&self.pool)
            .await
            .map_err(&failed)?;
        Ok((rows.into_iter().map(Operation::try_from).collect::<Result<_>>()?, total))
    }

    /// Returns the newest operation on an environment. (By row id, as clocks may be set back.)
    pub async fn latest_operation(&self, environment: &EnvironmentName) -> Result<Option<Operation>> {
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM operation WHERE environment = ? ORDER BY rowid DESC LIMIT 1")
                .bind(environment.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(query("reading an operation"))?;
        row.map(Operation::try_from).transpose()
    }

    /// Saves the state of an operation; returns `false` if it has ended already.
    pub async fn save_operation(&self, change: OperationChange<'_>, now: DateTime<Utc>) -> Result<bool> {
        let saved = change.statement(now)?.execute(&self.pool).await.map_err(query("saving an operation"))?;
        Ok(saved.rows_affected() > 0)
    }

    /// Removes operations that ended before that time.
    pub async fn forget_operations(&self, before: DateTime<Utc>) -> Result<u64> {
        let removed = sqlx::query("DELETE FROM operation WHERE state <> 'running' AND updated_at < ?")
            .bind(before)
            .execute(&self.pool)
            .await
            .map_err(query("forgetting old operations"))?;
        Ok(removed.rows_affected())
    }
}
