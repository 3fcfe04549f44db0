//! Airflow's connections. Only the scheduler can decrypt passwords and extras, so every request for one goes to it.

use airflow_serverless_api::{
    connection::{Connection, ConnectionList, PutConnections},
    page::{Page, ShowOne, Written},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlite_schema::row;

use super::{Deployed, variables::page_arguments};
use crate::error::{Result, Subject};

const LIST: &str = "SELECT conn_id, conn_type, description, host, login, schema, port FROM connection
                    ORDER BY conn_id LIMIT $1 OFFSET $2";

row! {
    #[derive(Deserialize)]
    struct Row {
        conn_id: String,
        conn_type: String,
        description: Option<String>,
        host: Option<String>,
        login: Option<String>,
        schema: Option<String>,
        port: Option<i32>,
    }
}

impl From<Row> for Connection {
    fn from(row: Row) -> Self {
        Self {
            connection_id: row.conn_id,
            conn_type: row.conn_type,
            description: row.description,
            host: row.host,
            login: row.login,
            schema: row.schema,
            port: row.port,
            password: None,
            extra: None,
            uri: None,
        }
    }
}

impl Deployed {
    pub async fn list_connections(&self, page: &Page) -> Result<ConnectionList> {
        if page.show_values {
            return self.command((Subject::Connection, "list_connections"), page_arguments(page)).await;
        }
        let (rows, total_entries) = self.page::<Row>(LIST, "connection", page).await?;
        Ok(ConnectionList { connections: rows.into_iter().map(Connection::from).collect(), total_entries })
    }

    pub async fn connection(&self, id: &str, show: ShowOne) -> Result<Connection> {
        let arguments = json!({"connection_id": id, "hide_sensitive": !show.show_values});
        self.command((Subject::Connection, "get_connection"), arguments).await
    }

    pub async fn put_connections(&self, request: &PutConnections) -> Result<Written> {
        let written = self.command((Subject::Connection, "put_connections"), json!(request)).await;
        self.airflow.values.invalidate(self.name());
        written
    }

    pub async fn delete_connection(&self, id: &str) -> Result<()> {
        let arguments = json!({"connection_id": id});
        let deleted: Result<Value> = self.command((Subject::Connection, "delete_connection"), arguments).await;
        self.airflow.values.invalidate(self.name());
        deleted.map(|_| ())
    }
}
