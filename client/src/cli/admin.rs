//! `variables`, `connections`, `pools`: the words and flags that people know from Airflow.

use std::path::PathBuf;

use airflow_serverless_api::page::ActionOnExisting;
use clap::{Args, Subcommand};

use super::{Environment, id, word};

#[derive(Subcommand)]
pub enum Variables {
    /// List the variables
    List(List),
    /// Print the value of a variable
    Get {
        #[command(flatten)]
        environment: Environment,
        /// Its key, as `variables list` shows it
        #[arg(value_parser = id)]
        key: String,
        /// Print this if there is no such variable
        #[arg(long, value_name = "VALUE")]
        default: Option<String>,
    },
    /// Create or replace a variable
    Set {
        #[command(flatten)]
        environment: Environment,
        /// Its key
        key: String,
        /// The value; `-` reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove a variable
    Delete {
        #[command(flatten)]
        environment: Environment,
        /// Its key, as `variables list` shows it
        #[arg(value_parser = id)]
        key: String,
    },
    /// Create or replace the variables of a .json, .yaml or .env file: all of them, or none
    Import {
        #[command(flatten)]
        environment: Environment,
        /// {key: value}, or {key: {value, description}}
        file: PathBuf,
        /// What becomes of variables that exist: overwrite, fail or skip
        #[arg(short, long, value_name = "ACTION", default_value = "overwrite", value_parser = word::<ActionOnExisting>)]
        action_on_existing_key: ActionOnExisting,
    },
    /// Write all variables with their values to a file
    Export {
        #[command(flatten)]
        environment: Environment,
        /// A .json file; `-` is standard output
        file: PathBuf,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub environment: Environment,
    /// Show values, too, in clear text
    #[arg(long)]
    pub show_values: bool,
    /// With --show-values: hide what Airflow considers sensitive
    #[arg(long, requires = "show_values")]
    pub hide_sensitive: bool,
    #[command(flatten)]
    pub page: Page,
}

#[derive(Args)]
pub struct Page {
    /// Show at most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Leave out the first ones
    #[arg(long, default_value_t = 0)]
    pub offset: u32,
}

#[derive(Subcommand)]
pub enum Connections {
    /// List the connections
    List(List),
    /// Show a connection
    Get {
        #[command(flatten)]
        environment: Environment,
        /// Its id, as `connections list` shows it
        #[arg(value_parser = id)]
        conn_id: String,
        /// Show the password and all of the extra, too, in clear text
        #[arg(long)]
        show_values: bool,
    },
    /// Create a connection from its URI, from JSON or from its parts; `-` for one of these reads it from standard input
    Add(Box<AddConnection>),
    /// Remove a connection
    Delete {
        #[command(flatten)]
        environment: Environment,
        /// Its id, as `connections list` shows it
        #[arg(value_parser = id)]
        conn_id: String,
    },
    /// Create the connections of a .json, .yaml or .env file; those that exist are left as they are
    Import {
        #[command(flatten)]
        environment: Environment,
        /// {id: URI}, or {id: {conn_type, host, ...}}
        file: PathBuf,
        /// Replace those that exist
        #[arg(long)]
        overwrite: bool,
    },
    /// Write all connections with their passwords to a file
    Export {
        #[command(flatten)]
        environment: Environment,
        /// A .json, .yaml or .env file; `-` is standard output
        file: PathBuf,
        /// json, yaml or env; by the name of the file if absent
        #[arg(long, value_name = "FORMAT", value_parser = ["json", "yaml", "env"])]
        file_format: Option<String>,
        /// How env files write a connection
        #[arg(long, value_name = "FORMAT", default_value = "uri", value_parser = ["uri", "json"])]
        serialization_format: String,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
    },
}

// One of the values may be `-`: it is read from standard input then, and so is in no list of processes.
#[derive(Args)]
pub struct AddConnection {
    #[command(flatten)]
    pub environment: Environment,
    /// Its id
    pub conn_id: String,
    /// `-`, or such as `postgres://login:password@host:5432/schema?option=value`
    #[arg(long, value_name = "URI", conflicts_with_all = ["conn_json", "conn_type", "conn_host", "conn_login",
        "conn_password", "conn_schema", "conn_port", "conn_extra"])]
    pub conn_uri: Option<String>,
    /// `-`, or an object with `conn_type`, `host`, `login`, `password`, `schema`, `port`, `extra`
    #[arg(long, value_name = "JSON", conflicts_with_all = ["conn_type", "conn_host", "conn_login", "conn_password",
        "conn_schema", "conn_port", "conn_extra"])]
    pub conn_json: Option<String>,
    /// Such as postgres or http
    #[arg(long, value_name = "TYPE", required_unless_present_any = ["conn_uri", "conn_json"])]
    pub conn_type: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub conn_description: Option<String>,
    /// The host
    #[arg(long, value_name = "HOST")]
    pub conn_host: Option<String>,
    /// The user's name; `-` for standard input
    #[arg(long, value_name = "LOGIN")]
    pub conn_login: Option<String>,
    /// The password; `-`, for standard input, keeps it out of the list of processes
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    pub conn_password: Option<String>,
    /// The schema, or the database
    #[arg(long, value_name = "SCHEMA")]
    pub conn_schema: Option<String>,
    /// The port
    #[arg(long, value_name = "PORT")]
    pub conn_port: Option<u16>,
    /// More options, a JSON object; `-` for standard input
    #[arg(long, value_name = "JSON")]
    pub conn_extra: Option<String>,
}

#[derive(Subcommand)]
pub enum Pools {
    /// List the pools
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
        /// Its name, as `pools list` shows it
        #[arg(value_parser = id)]
        pool: String,
    },
    /// Create or replace a pool
    Set {
        #[command(flatten)]
        environment: Environment,
        /// Its name
        pool: String,
        /// How many tasks may run in it at once; -1 for no limit
        #[arg(allow_negative_numbers = true)]
        slots: i32,
        /// What it is for
        description: String,
        /// Count deferred tasks, too
        #[arg(long)]
        include_deferred: bool,
    },
    /// Remove a pool
    Delete {
        #[command(flatten)]
        environment: Environment,
        /// Its name, as `pools list` shows it
        #[arg(value_parser = id)]
        pool: String,
    },
    /// Create or replace the pools of a .json or .yaml file: all of them, or none
    Import {
        #[command(flatten)]
        environment: Environment,
        /// {name: {slots, description, include_deferred}}
        file: PathBuf,
    },
    /// Write all pools to a file
    Export {
        #[command(flatten)]
        environment: Environment,
        /// A .json file; `-` is standard output
        file: PathBuf,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
    },
}
