//! Grammar of `variables`, `connections` and `pools`, with the names and flags of Airflow's CLI.

use std::path::PathBuf;

use airflow_serverless_api::page::ActionOnExisting;
use clap::{Args, Subcommand};

use super::{Environment, id, word};

#[derive(Subcommand)]
pub enum Variables {
    /// List variables
    List(List),
    /// Print the value of a variable
    Get {
        #[command(flatten)]
        environment: Environment,
        /// Key, as in `variables list`
        #[arg(value_parser = id)]
        key: String,
        /// Value to print if the variable does not exist
        #[arg(long, value_name = "VALUE")]
        default: Option<String>,
    },
    /// Create or replace a variable
    Set {
        #[command(flatten)]
        environment: Environment,
        /// Key
        key: String,
        /// Value; `-` reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Description
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a variable
    Delete {
        #[command(flatten)]
        environment: Environment,
        /// Key, as in `variables list`
        #[arg(value_parser = id)]
        key: String,
    },
    /// Import the variables of a .json, .yaml or .env file
    ///
    /// All are imported, or none.
    Import {
        #[command(flatten)]
        environment: Environment,
        /// File with {key: value} or {key: {value, description}}
        file: PathBuf,
        /// Action on variables that exist: overwrite, fail or skip
        #[arg(short, long, value_name = "ACTION", default_value = "overwrite", value_parser = word::<ActionOnExisting>)]
        action_on_existing_key: ActionOnExisting,
    },
    /// Export all variables with their values to a file
    Export {
        #[command(flatten)]
        environment: Environment,
        /// Path of a .json file; `-` is standard output
        file: PathBuf,
        /// Overwrite the file if it exists
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub environment: Environment,
    /// Show values in clear text
    #[arg(long)]
    pub show_values: bool,
    /// With --show-values, mask values that Airflow considers sensitive
    #[arg(long, requires = "show_values")]
    pub hide_sensitive: bool,
    #[command(flatten)]
    pub page: Page,
}

#[derive(Args)]
pub struct Page {
    /// Maximum number of rows
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Number of rows to skip
    #[arg(long, default_value_t = 0)]
    pub offset: u32,
}

#[derive(Subcommand)]
pub enum Connections {
    /// List connections
    List(List),
    /// Show a connection
    Get {
        #[command(flatten)]
        environment: Environment,
        /// Connection id, as in `connections list`
        #[arg(value_parser = id)]
        conn_id: String,
        /// Show the password and the whole extra in clear text
        #[arg(long)]
        show_values: bool,
    },
    /// Create a connection from a URI, JSON or single fields
    ///
    /// `-` as the value of one option reads it from standard input.
    Add(Box<AddConnection>),
    /// Delete a connection
    Delete {
        #[command(flatten)]
        environment: Environment,
        /// Connection id, as in `connections list`
        #[arg(value_parser = id)]
        conn_id: String,
    },
    /// Import the connections of a .json, .yaml or .env file
    ///
    /// Connections that exist are skipped without --overwrite.
    Import {
        #[command(flatten)]
        environment: Environment,
        /// File with {id: URI} or {id: {conn_type, host, ...}}
        file: PathBuf,
        /// Overwrite connections that exist
        #[arg(long)]
        overwrite: bool,
    },
    /// Export all connections with their passwords to a file
    Export {
        #[command(flatten)]
        environment: Environment,
        /// Path of a .json, .yaml or .env file; `-` is standard output
        file: PathBuf,
        /// json, yaml or env [default: by the name of the file]
        #[arg(long, value_name = "FORMAT", value_parser = ["json", "yaml", "env"])]
        file_format: Option<String>,
        /// Format of connections in .env files
        #[arg(long, value_name = "FORMAT", default_value = "uri", value_parser = ["uri", "json"])]
        serialization_format: String,
        /// Overwrite the file if it exists
        #[arg(long)]
        force: bool,
    },
}

// One of the values may be `-`: it is read from standard input then, and so is in no list of processes.
#[derive(Args)]
pub struct AddConnection {
    #[command(flatten)]
    pub environment: Environment,
    /// Connection id
    pub conn_id: String,
    /// URI such as `postgres://login:password@host:5432/schema?option=value`, or `-`
    #[arg(long, value_name = "URI", conflicts_with_all = ["conn_json", "conn_type", "conn_host", "conn_login",
        "conn_password", "conn_schema", "conn_port", "conn_extra"])]
    pub conn_uri: Option<String>,
    /// JSON object with `conn_type`, `host`, `login`, `password`, `schema`, `port`, `extra`, or `-`
    #[arg(long, value_name = "JSON", conflicts_with_all = ["conn_type", "conn_host", "conn_login", "conn_password",
        "conn_schema", "conn_port", "conn_extra"])]
    pub conn_json: Option<String>,
    /// Connection type, such as postgres or http
    #[arg(long, value_name = "TYPE", required_unless_present_any = ["conn_uri", "conn_json"])]
    pub conn_type: Option<String>,
    /// Description
    #[arg(long, value_name = "TEXT")]
    pub conn_description: Option<String>,
    /// Host
    #[arg(long, value_name = "HOST")]
    pub conn_host: Option<String>,
    /// User name; `-` reads it from standard input
    #[arg(long, value_name = "LOGIN")]
    pub conn_login: Option<String>,
    /// Password; `-` reads it from standard input and keeps it out of the process list
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    pub conn_password: Option<String>,
    /// Schema or database
    #[arg(long, value_name = "SCHEMA")]
    pub conn_schema: Option<String>,
    /// Port
    #[arg(long, value_name = "PORT")]
    pub conn_port: Option<u16>,
    /// Extra options, a JSON object; `-` reads it from standard input
    #[arg(long, value_name = "JSON")]
    pub conn_extra: Option<String>,
}

#[derive(Subcommand)]
pub enum Pools {
    /// List pools
    List {
        #[command(flatten)]
        environment: Environment,
        #[command(flatten)]
        page: Page,
    },
    /// Show a pool
    Get {
        #[command(flatten)]
        environment: Environment,
        /// Pool name, as in `pools list`
        #[arg(value_parser = id)]
        pool: String,
    },
    /// Create or replace a pool
    Set {
        #[command(flatten)]
        environment: Environment,
        /// Pool name
        pool: String,
        /// Number of slots; -1 means unlimited
        #[arg(allow_negative_numbers = true)]
        slots: i32,
        /// Description
        description: String,
        /// Count deferred tasks as well
        #[arg(long)]
        include_deferred: bool,
    },
    /// Delete a pool
    Delete {
        #[command(flatten)]
        environment: Environment,
        /// Pool name, as in `pools list`
        #[arg(value_parser = id)]
        pool: String,
    },
    /// Import the pools of a .json or .yaml file
    ///
    /// All are imported, or none.
    Import {
        #[command(flatten)]
        environment: Environment,
        /// File with {name: {slots, description, include_deferred}}
        file: PathBuf,
    },
    /// Export all pools to a file
    Export {
        #[command(flatten)]
        environment: Environment,
        /// Path of a .json file; `-` is standard output
        file: PathBuf,
        /// Overwrite the file if it exists
        #[arg(long)]
        force: bool,
    },
}
