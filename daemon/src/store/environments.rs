//! Environments: the wanted configuration and how far it has been reached.

use airflow_serverless_api::{
    config::Config,
    environment::{
        Condition, ConditionKind, Environment, EnvironmentName, EnvironmentState, ListEnvironments, Reason, Target,
    },
    page::limit,
};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, Sqlite, query::Query, sqlite::SqliteArguments};

use super::{NewOperation, OperationChange, Result, Store, StoreError, decode, encode, from_word, query, word};
use crate::registry::{Deletion, Wish};

#[derive(FromRow)]
struct Row {
    name: String,
    target: String,
    config: String,
    generation: i64,
    observed_generation: i64,
    error: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deletion: Option<String>,
    cancelled_generation: i64,
    failed_step: Option<String>,
    attempts: i64,
    retry_at: Option<DateTime<Utc>>,
    available_at: Option<DateTime<Utc>>,
    reconciled_at: Option<DateTime<Utc>>,
}

impl Row {
    fn state(&self) -> EnvironmentState {
        if self.deletion.is_some() {
            EnvironmentState::Deleting
        } else if self.observed_generation == self.generation {
            EnvironmentState::Ready
        } else if self.error.is_some() || self.is_cancelled() {
            EnvironmentState::Degraded
        } else {
            EnvironmentState::Progressing
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled_generation == self.generation
    }

    fn conditions(&self) -> Vec<Condition> {
        let since = |at: Option<DateTime<Utc>>| at.unwrap_or(self.created_at);
        let condition = |kind, (status, reason, message): (bool, Reason, String), at| Condition {
            kind,
            status,
            reason,
            message,
            last_transition_at: since(at),
        };
        vec![
            condition(ConditionKind::Available, self.available(), self.available_at),
            condition(ConditionKind::Reconciled, self.reconciled(), self.reconciled_at),
        ]
    }

    fn available(&self) -> (bool, Reason, String) {
        match self.observed_generation {
            0 => (false, Reason::NeverDeployed, "it has not been deployed yet".to_owned()),
            generation => (true, Reason::Deployed, format!("generation {generation} is deployed")),
        }
    }

    fn reconciled(&self) -> (bool, Reason, String) {
        let failure = self.error.as_ref().map(|error| match &self.failed_step {
            Some(step) => format!("{step}: {error}"),
            None => error.clone(),
        });
        match (self.state(), failure) {
            (EnvironmentState::Ready, _) => (true, Reason::AsConfigured, "what runs is what is configured".to_owned()),
            (_, Some(failure)) => (false, Reason::StepFailed, failure),
            (EnvironmentState::Deleting, None) => (false, Reason::Deleting, "it is being taken down".to_owned()),
            (_, None) if self.is_cancelled() => {
                (false, Reason::Cancelled, "the work on it was cancelled; a new `create` takes it up again".to_owned())
            }
            (_, None) => (false, Reason::InProgress, format!("generation {} is being deployed", self.generation)),
        }
    }
}

impl TryFrom<Row> for Environment {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let name: EnvironmentName = from_word("environment name", &row.name)?;
        let conditions = row.conditions();
        Ok(Self {
            names: (&name).into(),
            name,
            target: from_word("target", &row.target)?,
            state: row.state(),
            conditions,
            config: decode("configuration", &row.config)?,
            generation: row.generation,
            observed_generation: row.observed_generation,
            failed_attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            retry_at: row.retry_at.filter(|_| row.error.is_some()),
            error: row.error,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl TryFrom<Row> for Wish {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let deletion = row.deletion.as_deref().map(|deletion| from_word("deletion", deletion)).transpose()?;
        let is_met = deletion.is_none() && row.observed_generation == row.generation;
        Ok(Self {
            deletion,
            is_open: !is_met && !row.is_cancelled(),
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            retry_at: row.retry_at,
            environment: row.try_into()?,
        })
    }
}

/// How an attempt to reach a generation ended.
pub enum Outcome<'a> {
    /// These functions are deployed.
    Reached {
        functions: &'a str,
    },
    Failed {
        step: &'a str,
        error: &'a str,
        retry_at: DateTime<Utc>,
    },
}

impl Store {
    async fn rows(&self) -> Result<Vec<Row>> {
        sqlx::query_as("SELECT * FROM environment ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(query("listing environments"))
    }

    /// A page of the environments, by name, and how many there are.
    pub async fn environments(&self, wanted: &ListEnvironments) -> Result<(Vec<Environment>, i64)> {
        let mut rows = self.rows().await?;
        // The state is no column, and environments are few.
        rows.retain(|row| wanted.state.is_none_or(|state| row.state() == state));
        let total = rows.len() as i64;
        let (offset, limit) = (wanted.offset.unwrap_or(0) as usize, limit(wanted.limit) as usize);
        let page = rows.into_iter().skip(offset).take(limit).map(Environment::try_from).collect::<Result<_>>()?;
        Ok((page, total))
    }

    /// What is wanted of each environment.
    pub async fn wishes(&self) -> Result<Vec<Wish>> {
        self.rows().await?.into_iter().map(Wish::try_from).collect()
    }

    pub async fn environment(&self, name: &EnvironmentName) -> Result<Option<Environment>> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM environment WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading an environment"))?;
        row.map(Environment::try_from).transpose()
    }

    /// Inserts the environment together with the operation that will create it.
    pub async fn insert_environment(
        &self,
        name: &EnvironmentName,
        (target, config): (Target, &Config),
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let failed = query("creating an environment");
        let mut transaction = self.begin(&failed).await?;
        sqlx::query(
            "INSERT INTO environment (name, target, config, generation, created_at, updated_at)
             VALUES (?, ?, ?, 1, ?, ?)",
        )
        .bind(name.as_str())
        .bind(word("target", &target)?)
        .bind(encode("configuration", config)?)
        .bind(now)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        operation.insert(&mut transaction, name, now).await?;
        transaction.commit().await.map_err(&failed)
    }

    /// Sets a new configuration, one generation on, together with the operation that will apply it.
    pub async fn update_environment(
        &self,
        name: &EnvironmentName,
        config: &Config,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.wish(name, ("config", encode("configuration", config)?), operation, now).await
    }

    /// Wants an environment gone, together with the operation that takes it down.
    pub async fn delete_environment(
        &self,
        name: &EnvironmentName,
        deletion: Deletion,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.wish(name, ("deletion", word("deletion", &deletion)?), operation, now).await
    }

    /// Wants something else of an environment, one generation on: what is known of attempts is of the wish before.
    async fn wish(
        &self,
        name: &EnvironmentName,
        (column, value): (&'static str, String),
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let failed = query("changing what is wanted of an environment");
        let mut transaction = self.begin(&failed).await?;
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE environment SET {column} = $1, generation = generation + 1, error = NULL, failed_step = NULL,
                    attempts = 0, retry_at = NULL, updated_at = $2,
                    reconciled_at = CASE WHEN observed_generation = generation THEN $2 ELSE reconciled_at END
             WHERE name = $3"
        )))
        .bind(value)
        .bind(now)
        .bind(name.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        operation.insert(&mut transaction, name, now).await?;
        transaction.commit().await.map_err(&failed)
    }

    /// How the environment is to end, if it is.
    pub async fn deletion(&self, name: &EnvironmentName) -> Result<Option<Deletion>> {
        let wanted: Option<Option<String>> = sqlx::query_scalar("SELECT deletion FROM environment WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading an environment"))?;
        wanted.flatten().map(|deletion| from_word("deletion", &deletion)).transpose()
    }

    /// Forgets an environment that has been taken down, and ends the operation that has done so.
    pub async fn forget_environment(
        &self,
        name: &EnvironmentName,
        ended: Option<OperationChange<'_>>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let forget = sqlx::query("DELETE FROM environment WHERE name = ?").bind(name.as_str());
        self.end(forget, ended, now, query("forgetting an environment")).await
    }

    /// Changes an environment and ends the operation that has come to that; tells whether it was still running. A crash
    /// in between would leave an operation that nobody has a reason to end.
    async fn end<'q>(
        &self,
        change: Query<'q, Sqlite, SqliteArguments>,
        ended: Option<OperationChange<'_>>,
        now: DateTime<Utc>,
        failed: impl Fn(sqlx::Error) -> StoreError,
    ) -> Result<bool> {
        let mut transaction = self.begin(&failed).await?;
        change.execute(&mut *transaction).await.map_err(&failed)?;
        let was_running = match ended {
            Some(ended) => ended.save(&mut transaction, now).await?,
            None => false,
        };
        transaction.commit().await.map_err(&failed)?;
        Ok(was_running)
    }

    /// Records how an attempt to reach `generation` ended, and with it its operation. What has been wanted since is none of
    /// its business.
    pub async fn observe_environment(
        &self,
        name: &EnvironmentName,
        generation: i64,
        (outcome, ended): (Outcome<'_>, Option<OperationChange<'_>>),
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let change = match outcome {
            Outcome::Reached { functions } => sqlx::query(
                "UPDATE environment SET observed_generation = $1, functions = $2, updated_at = $3,
                        available_at = CASE WHEN observed_generation = 0 THEN $3 ELSE available_at END,
                        reconciled_at = CASE WHEN generation = $1 THEN $3 ELSE reconciled_at END,
                        error = CASE WHEN generation = $1 THEN NULL ELSE error END,
                        failed_step = CASE WHEN generation = $1 THEN NULL ELSE failed_step END,
                        attempts = CASE WHEN generation = $1 THEN 0 ELSE attempts END,
                        retry_at = CASE WHEN generation = $1 THEN NULL ELSE retry_at END
                 WHERE name = $4 AND observed_generation < $1",
            )
            .bind(generation)
            .bind(functions)
            .bind(now)
            .bind(name.as_str()),
            Outcome::Failed { step, error, retry_at } => sqlx::query(
                "UPDATE environment SET error = $2, failed_step = $3, attempts = attempts + 1, retry_at = $4, updated_at = $5
                 WHERE name = $6 AND generation = $1",
            )
            .bind(generation)
            .bind(error)
            .bind(step)
            .bind(retry_at)
            .bind(now)
            .bind(name.as_str()),
        };
        self.end(change, ended, now, query("recording an environment's state")).await
    }

    /// Lets the work on the wanted generation rest, and ends its operation; the wish stays as it is.
    pub async fn cancel_environment(
        &self,
        name: &EnvironmentName,
        cancelled: OperationChange<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let rest = sqlx::query(
            "UPDATE environment SET cancelled_generation = generation, updated_at = ?
             WHERE name = ? AND deletion IS NULL AND observed_generation < generation",
        )
        .bind(now)
        .bind(name.as_str());
        self.end(rest, Some(cancelled), now, query("cancelling the work on an environment")).await
    }

    /// At a start of the daemon: nothing waits for another attempt, and all environments are wanted anew that run other
    /// functions than these (the daemon has been upgraded). Gives how many.
    pub async fn outdate_environments(&self, functions: &str, now: DateTime<Utc>) -> Result<u64> {
        let failed = query("looking for outdated environments");
        sqlx::query("UPDATE environment SET retry_at = NULL").execute(&self.pool).await.map_err(&failed)?;
        let updated = sqlx::query(
            "UPDATE environment SET generation = generation + 1, updated_at = $1, reconciled_at = $1
             WHERE observed_generation = generation AND deletion IS NULL AND functions <> $2",
        )
        .bind(now)
        .bind(functions)
        .execute(&self.pool)
        .await
        .map_err(&failed)?;
        Ok(updated.rows_affected())
    }
}
