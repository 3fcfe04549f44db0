//! Airflow's pools.

use airflow_serverless_api::{
    page::{Page, Written},
    pool::{Pool, PoolList, PutPools},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::Deployed;
use crate::error::{Error, Result, Subject};

const COLUMNS: &str = "SELECT pool, slots, description, include_deferred FROM slot_pool";

row! {
    #[derive(Deserialize)]
    struct Row {
        pool: String,
        slots: i32,
        description: Option<String>,
        include_deferred: bool,
    }
}

impl From<Row> for Pool {
    fn from(row: Row) -> Self {
        Self { name: row.pool, slots: row.slots, description: row.description, include_deferred: row.include_deferred }
    }
}

impl Deployed {
    pub async fn list_pools(&self, page: &Page) -> Result<PoolList> {
        let sql = format!("{COLUMNS} ORDER BY pool LIMIT $1 OFFSET $2");
        let (rows, total_entries) = self.page::<Row>(&sql, "slot_pool", page).await?;
        Ok(PoolList { pools: rows.into_iter().map(Pool::from).collect(), total_entries })
    }

    pub async fn pool(&self, name: &str) -> Result<Pool> {
        let missing = || Error::NotFound(Subject::Pool, name.to_owned(), self.name().clone());
        let metadata = self.metadata().await?;
        let rows: Vec<Row> = metadata.query(&format!("{COLUMNS} WHERE pool = $1"), &[json!(name)]).await?;
        rows.into_iter().next().map(Pool::from).ok_or_else(missing)
    }

    pub async fn put_pools(&self, request: &PutPools) -> Result<Written> {
        self.command((Subject::Pool, "put_pools"), json!(request)).await
    }

    pub async fn delete_pool(&self, name: &str) -> Result<()> {
        let _: Value = self.command((Subject::Pool, "delete_pool"), json!({"name": name})).await?;
        Ok(())
    }
}
