//! Environments: the desired configuration and the observed state.

use airflow_serverless_api::{
    config::Config,
    environment::{
        Condition, ConditionKind, Environment, EnvironmentName, EnvironmentState, ListEnvironments, Reason, Target,
    },
    page::limit,
};
use chrono::{DateTime, Utc};
use sqlite_schema::row;

use super::{
    NewOperation, OperationChange, Result, Statement, Store, StoreError, decode, encode, from_word, query, word,
};
use crate::model::{Deletion, DesiredState};

row! {
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
        scheduler: Option<String>,
    }
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

    fn conditions(&self) -> Result<Vec<Condition>> {
        let since = |at: Option<DateTime<Utc>>| at.unwrap_or(self.created_at);
        let condition = |kind, (status, reason, message): (bool, Reason, String), at| Condition {
            kind,
            status,
            reason,
            message,
            last_transition_at: since(at),
        };
        let scheduler = match (&self.scheduler, self.observed_generation) {
            (Some(scheduler), 1..) => decode::<Condition>("condition", scheduler)?,
            (None, 1..) => condition(
                ConditionKind::SchedulerHealthy,
                (true, Reason::Unobserved, "it has not been looked at yet".to_owned()),
                self.available_at,
            ),
            _ => condition(ConditionKind::SchedulerHealthy, self.available(), self.available_at),
        };
        Ok(vec![
            condition(ConditionKind::Available, self.available(), self.available_at),
            condition(ConditionKind::Reconciled, self.reconciled(), self.reconciled_at),
            scheduler,
        ])
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
        let conditions = row.conditions()?;
        Ok(Self {
            names: (&name).into(),
            name,
            target: from_word("target", &row.target)?,
            state: row.state(),
            conditions,
            // Registries of earlier versions have an empty string in place of each secret value.
            config: decode::<Config>("configuration", &row.config)?.without_secrets(),
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

impl TryFrom<Row> for DesiredState {
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

/// The result of an attempt to reach a generation.
pub enum Outcome<'a> {
    /// The deployed functions.
    Reached {
        functions: &'a str,
    },
    Failed {
        step: &'a str,
        error: &'a str,
        retry_at: DateTime<Utc>,
    },
}

/// Whether a result was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Recorded {
        /// Whether an operation was running, which this has ended.
        was_running: bool,
    },
    /// There is a newer generation.
    Outdated,
}

impl Store {
    async fn rows(&self) -> Result<Vec<Row>> {
        sqlx::query_as("SELECT * FROM environment ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(query("listing environments"))
    }

    /// Returns a page of the environments, by name, and the total number.
    pub async fn environments(&self, wanted: &ListEnvironments) -> Result<(Vec<Environment>, i64)> {
        let mut rows = self.rows().await?;
        // The state is not a column, and there are few environments.
        rows.retain(|row| wanted.state.is_none_or(|state| row.state() == state));
        let total = rows.len() as i64;
        let (offset, limit) = (wanted.offset.unwrap_or(0) as usize, limit(wanted.limit) as usize);
        let page = rows.into_iter().skip(offset).take(limit).map(Environment::try_from).collect::<Result<_>>()?;
        Ok((page, total))
    }

    /// Returns the desired state of each environment.
    pub async fn desired_states(&self) -> Result<Vec<DesiredState>> {
        self.rows().await?.into_iter().map(DesiredState::try_from).collect()
    }

    pub async fn environment(&self, name: &EnvironmentName) -> Result<Option<Environment>> {
        let moment = match self.recent.get(name) {
            Ok(environment) => return Ok(Some(environment)),
            Err(moment) => moment,
        };
        let row: Option<Row> = sqlx::query_as("SELECT * FROM environment WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading an environment"))?;
        let environment = row.map(Environment::try_from).transpose()?;
        if let Some(environment) = &environment {
            self.recent.keep(environment, moment);
        }
        Ok(environment)
    }

    /// Inserts the environment together with the operation that will create it.
    pub async fn insert_environment(
        &self,
        name: &EnvironmentName,
        (target, config): (Target, &Config),
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let insertion = sqlx::query(
            "INSERT INTO environment (name, target, config, generation, created_at, updated_at)
             VALUES ($1, $2, $3, 1, $4, $4)",
        )
        .bind(name.to_string())
        .bind(word("target", &target)?)
        .bind(encode("configuration", config)?)
        .bind(now);
        self.change_with_operation("creating an environment", insertion, name, operation, now).await
    }

    /// Sets a new configuration and increments the generation, together with the operation that will apply it.
    pub async fn update_environment(
        &self,
        name: &EnvironmentName,
        config: &Config,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.set_desired(name, ("config", encode("configuration", config)?), operation, now).await
    }

    /// Marks an environment for deletion, together with the operation that carries it out.
    pub async fn delete_environment(
        &self,
        name: &EnvironmentName,
        deletion: Deletion,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.set_desired(name, ("deletion", word("deletion", &deletion)?), operation, now).await
    }

    /// Changes the desired state and increments the generation. Resets the attempts, which belong to the earlier
    /// generation.
    async fn set_desired(
        &self,
        name: &EnvironmentName,
        (column, value): (&'static str, String),
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let update = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE environment SET {column} = $1, generation = generation + 1, error = NULL, failed_step = NULL,
                    attempts = 0, retry_at = NULL, updated_at = $2,
                    reconciled_at = CASE WHEN observed_generation = generation THEN $2 ELSE reconciled_at END
             WHERE name = $3"
        )))
        .bind(value)
        .bind(now)
        .bind(name.to_string());
        self.change_with_operation("changing what is wanted of an environment", update, name, operation, now).await
    }

    /// Applies a change together with the operation that it starts.
    async fn change_with_operation(
        &self,
        what: &'static str,
        statement: Statement,
        name: &EnvironmentName,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (store, name, operation) = (self.clone(), name.clone(), operation.clone());
        self.change(async move {
            let failed = query(what);
            let mut transaction = store.begin(&failed).await?;
            statement.execute(&mut *transaction).await.map_err(&failed)?;
            operation.insert(&mut transaction, &name, now).await?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    /// Applies a change of one statement; returns the number of affected environments.
    async fn change_by(&self, what: &'static str, statement: Statement) -> Result<u64> {
        let pool = self.pool.clone();
        self.change(async move {
            let changed = statement.execute(&pool).await.map_err(query(what))?;
            Ok(changed.rows_affected())
        })
        .await
    }

    /// Returns how the environment is to be deleted, if so.
    pub async fn deletion(&self, name: &EnvironmentName) -> Result<Option<Deletion>> {
        let wanted: Option<Option<String>> = sqlx::query_scalar("SELECT deletion FROM environment WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading an environment"))?;
        wanted.flatten().map(|deletion| from_word("deletion", &deletion)).transpose()
    }

    /// Forgets an environment that was taken down for `generation`, and ends the operation.
    pub async fn forget_environment(
        &self,
        name: &EnvironmentName,
        generation: i64,
        ended: Option<OperationChange<'_>>,
        now: DateTime<Utc>,
    ) -> Result<Ended> {
        let forget = sqlx::query("DELETE FROM environment WHERE name = ? AND generation = ?");
        self.end("forgetting an environment", forget.bind(name.to_string()).bind(generation), ended, now).await
    }

    /// Changes an environment and ends its operation, in one transaction: a crash in between would leave an operation
    /// that nothing ends. If the environment has a newer generation, neither is changed.
    async fn end(
        &self,
        what: &'static str,
        change: Statement,
        ended: Option<OperationChange<'_>>,
        now: DateTime<Utc>,
    ) -> Result<Ended> {
        let (store, ended) = (self.clone(), ended.map(|ended| ended.statement(now)).transpose()?);
        self.change(async move {
            let failed = query(what);
            let mut transaction = store.begin(&failed).await?;
            if change.execute(&mut *transaction).await.map_err(&failed)?.rows_affected() == 0 {
                return Ok(Ended::Outdated);
            }
            let was_running = match ended {
                Some(ended) => ended.execute(&mut *transaction).await.map_err(&failed)?.rows_affected() > 0,
                None => false,
            };
            transaction.commit().await.map_err(&failed)?;
            Ok(Ended::Recorded { was_running })
        })
        .await
    }

    /// Records the result of an attempt to reach `generation`, and ends its operation. Does not affect a newer
    /// generation.
    pub async fn observe_environment(
        &self,
        name: &EnvironmentName,
        generation: i64,
        (outcome, ended): (Outcome<'_>, Option<OperationChange<'_>>),
        now: DateTime<Utc>,
    ) -> Result<Ended> {
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
            .bind(functions.to_owned())
            .bind(now)
            .bind(name.to_string()),
            Outcome::Failed { step, error, retry_at } => sqlx::query(
                "UPDATE environment SET error = $2, failed_step = $3, attempts = attempts + 1, retry_at = $4, updated_at = $5
                 WHERE name = $6 AND generation = $1",
            )
            .bind(generation)
            .bind(error.to_owned())
            .bind(step.to_owned())
            .bind(retry_at)
            .bind(now)
            .bind(name.to_string()),
        };
        self.end("recording an environment's state", change, ended, now).await
    }

    /// Records the condition of the scheduler.
    pub async fn observe_scheduler(&self, name: &EnvironmentName, condition: &Condition) -> Result<()> {
        let update = sqlx::query("UPDATE environment SET scheduler = ? WHERE name = ?")
            .bind(encode("condition", condition)?)
            .bind(name.to_string());
        self.change_by("recording the state of a scheduler", update).await.map(|_| ())
    }

    /// Stops the work on the current generation, and ends its operation; the desired state stays.
    pub async fn cancel_environment(
        &self,
        name: &EnvironmentName,
        cancelled: OperationChange<'_>,
        now: DateTime<Utc>,
    ) -> Result<Ended> {
        let rest = sqlx::query(
            "UPDATE environment SET cancelled_generation = generation, updated_at = ?
             WHERE name = ? AND deletion IS NULL AND observed_generation < generation",
        )
        .bind(now)
        .bind(name.to_string());
        self.end("cancelling the work on an environment", rest, Some(cancelled), now).await
    }

    /// Called when the daemon starts: clears all retry times, and redeploys all environments whose functions differ
    /// from these (after an upgrade of the daemon). Returns their number.
    pub async fn outdate_environments(&self, functions: &str, now: DateTime<Utc>) -> Result<u64> {
        let what = "looking for outdated environments";
        self.change_by(what, sqlx::query("UPDATE environment SET retry_at = NULL")).await?;
        let update = sqlx::query(
            "UPDATE environment SET generation = generation + 1, updated_at = $1, reconciled_at = $1
             WHERE observed_generation = generation AND deletion IS NULL AND functions <> $2",
        )
        .bind(now)
        .bind(functions.to_owned());
        self.change_by(what, update).await
    }
}
