//! Environments: the wanted configuration and how far it has been reached.

use airflow_serverless_api::{
    config::Config,
    environment::{Environment, EnvironmentName, EnvironmentState, Target},
};
use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{NewOperation, Result, Store, StoreError, decode, encode, query};

#[derive(FromRow)]
struct Row {
    name: String,
    config: String,
    generation: i64,
    observed_generation: i64,
    error: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Environment {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let name: EnvironmentName = decode("environment name", &format!("{:?}", row.name))?;
        let state = match (&row.error, row.observed_generation == row.generation) {
            (Some(_), _) => EnvironmentState::Degraded,
            (None, true) => EnvironmentState::Ready,
            (None, false) => EnvironmentState::Progressing,
        };
        Ok(Self {
            names: (&name).into(),
            name,
            target: Target::Local,
            config: decode("configuration", &row.config)?,
            generation: row.generation,
            observed_generation: row.observed_generation,
            state,
            error: row.error,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl Store {
    pub async fn environments(&self) -> Result<Vec<Environment>> {
        let rows: Vec<Row> = sqlx::query_as("SELECT * FROM environment ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(query("listing environments"))?;
        rows.into_iter().map(Environment::try_from).collect()
    }

    pub async fn environment(&self, name: &EnvironmentName) -> Result<Option<Environment>> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM environment WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(query("reading an environment"))?;
        row.map(Environment::try_from).transpose()
    }

    /// Inserts the environment together with the operation that will create it; `false` if the name is taken.
    pub async fn insert_environment(
        &self,
        name: &EnvironmentName,
        config: &Config,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let failed = query("creating an environment");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        let inserted = sqlx::query(
            "INSERT INTO environment (name, config, generation, created_at, updated_at) VALUES (?, ?, 1, ?, ?)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(name.as_str())
        .bind(encode("configuration", config)?)
        .bind(now)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected();
        if inserted == 1 {
            operation.insert(&mut transaction, name, now).await?;
            transaction.commit().await.map_err(&failed)?;
        }
        Ok(inserted == 1)
    }

    /// Sets a new configuration, one generation on, together with the operation that will apply it.
    pub async fn update_environment(
        &self,
        name: &EnvironmentName,
        config: &Config,
        operation: &NewOperation,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let failed = query("updating an environment");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        sqlx::query(
            "UPDATE environment SET config = ?, generation = generation + 1, error = NULL, updated_at = ?
             WHERE name = ?",
        )
        .bind(encode("configuration", config)?)
        .bind(now)
        .bind(name.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        operation.insert(&mut transaction, name, now).await?;
        transaction.commit().await.map_err(&failed)
    }

    /// Records how an attempt to reach `generation` ended: with these functions deployed, or with an error.
    pub async fn observe_environment(
        &self,
        name: &EnvironmentName,
        generation: i64,
        outcome: Result<&str, &str>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let observed = outcome.map_or(0, |_| generation);
        sqlx::query(
            "UPDATE environment SET observed_generation = max(observed_generation, ?),
                    functions = coalesce(?, functions), error = ?, updated_at = ?
             WHERE name = ?",
        )
        .bind(observed)
        .bind(outcome.ok())
        .bind(outcome.err())
        .bind(now)
        .bind(name.as_str())
        .execute(&self.pool)
        .await
        .map_err(query("recording an environment's state"))?;
        Ok(())
    }

    /// Wants all environments anew that run other functions than these: the daemon has been upgraded.
    pub async fn outdate_environments(&self, functions: &str, now: DateTime<Utc>) -> Result<u64> {
        let updated = sqlx::query(
            "UPDATE environment SET generation = generation + 1, updated_at = ?
             WHERE observed_generation = generation AND functions <> ?",
        )
        .bind(now)
        .bind(functions)
        .execute(&self.pool)
        .await
        .map_err(query("looking for outdated environments"))?;
        Ok(updated.rows_affected())
    }
}
