//! Airflow's variables. Only the scheduler can decrypt values, so every request for one goes to it.

use airflow_serverless_api::{
    page::{Page, ShowOne, Written},
    variable::{PutVariables, Variable, VariableList},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::Deployed;
use crate::error::{Result, Subject};

const LIST: &str = "SELECT key, description, is_encrypted FROM variable ORDER BY key LIMIT $1 OFFSET $2";

row! {
    #[derive(Deserialize)]
    struct Row {
        key: String,
        description: Option<String>,
        is_encrypted: bool,
    }
}

impl From<Row> for Variable {
    fn from(row: Row) -> Self {
        Self { key: row.key, value: None, description: row.description, is_encrypted: row.is_encrypted }
    }
}

impl Deployed {
    pub async fn list_variables(&self, page: &Page) -> Result<VariableList> {
        if page.show_values {
            return self.command((Subject::Variable, "list_variables"), page_arguments(page)).await;
        }
        let (rows, total_entries) = self.page::<Row>(LIST, "variable", page).await?;
        Ok(VariableList { variables: rows.into_iter().map(Variable::from).collect(), total_entries })
    }

    pub async fn variable(&self, key: &str, show: ShowOne) -> Result<Variable> {
        let arguments = json!({"key": key, "hide_sensitive": !show.show_values});
        self.command((Subject::Variable, "get_variable"), arguments).await
    }

    pub async fn put_variables(&self, request: &PutVariables) -> Result<Written> {
        let written = self.command((Subject::Variable, "put_variables"), json!(request)).await;
        self.airflow.values.invalidate(self.name());
        written
    }

    pub async fn delete_variable(&self, key: &str) -> Result<()> {
        let deleted: Result<Value> = self.command((Subject::Variable, "delete_variable"), json!({"key": key})).await;
        self.airflow.values.invalidate(self.name());
        deleted.map(|_| ())
    }
}

/// The arguments for a page in the scheduler's commands.
pub(super) fn page_arguments(page: &Page) -> Value {
    json!({"limit": page.limit(), "offset": page.offset(), "hide_sensitive": page.hide_sensitive})
}
