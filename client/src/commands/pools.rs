//! `pools`, as in Airflow's CLI.

use airflow_serverless_api::{
    environment::EnvironmentName,
    page::{self, ActionOnExisting},
    pool::{Pool, PoolList, PutPools},
    problem::Fault,
    routes,
};
use serde_json::{Map, Value, json};

use super::{Outcome, files};
use crate::{
    cli::Pools,
    error::{CliError, ExitStatus},
    printer::{Printer, table},
    session,
};

const NOUN: &str = "pools";

pub async fn run(command: Pools, printer: &Printer) -> Outcome {
    match command {
        Pools::List { environment, page } => {
            let page = page::Page { limit: Some(page.limit), offset: Some(page.offset), ..page::Page::default() };
            let list: PoolList = session::connect(printer).await?.list(&environment.name, routes::POOLS, &page).await?;
            printer.result(&list, |list| rows(&list.pools));
        }
        Pools::Get { environment, pool } => {
            let daemon = session::connect(printer).await?;
            let pool: Pool = daemon.get_one(&environment.name, (routes::POOL, &pool), false).await?;
            printer.result(&pool, |pool| rows(std::slice::from_ref(pool)));
        }
        Pools::Set { environment, pool, slots, description, include_deferred } => {
            let pool = Pool { name: pool, slots, description: Some(description), include_deferred };
            put(&environment.name, vec![pool], printer).await?;
        }
        Pools::Delete { environment, pool } => {
            session::connect(printer).await?.delete(&environment.name, (routes::POOL, &pool)).await?;
            printer.result(&json!({"name": pool}), |_| format!("pool {pool} deleted"));
        }
        Pools::Import { environment, file } => {
            let pools = files::read(&file)?.into_iter().map(from_file).collect::<Result<_, _>>()?;
            put(&environment.name, pools, printer).await?;
        }
        Pools::Export { environment, file, force } => {
            files::check_json(&file)?;
            files::check_absent(&file, force)?;
            let daemon = session::connect(printer).await?;
            let mut entries = Map::new();
            loop {
                let list: PoolList =
                    daemon.list(&environment.name, routes::POOLS, &files::export_page(entries.len())).await?;
                let is_last = list.pools.is_empty();
                entries.extend(list.pools.into_iter().map(to_file));
                if is_last || entries.len() as i64 >= list.total_entries {
                    break;
                }
            }
            files::write(&file, &files::pretty(&entries), force)?;
            files::exported(NOUN, &file, entries.len(), printer);
        }
    }
    Ok(ExitStatus::Success)
}

async fn put(environment: &EnvironmentName, pools: Vec<Pool>, printer: &Printer) -> Result<(), CliError> {
    let action = ActionOnExisting::Overwrite;
    let request = PutPools { pools, action_on_existing_key: action };
    let answer = session::connect(printer).await?.put(environment, routes::POOLS, &request).await?;
    printer.result(&answer, |answer| files::written(NOUN, answer, action));
    Ok(())
}

/// Parses an entry with `slots`, `description` and optionally `include_deferred`.
fn from_file((name, entry): (String, Value)) -> Result<Pool, CliError> {
    let Value::Object(mut fields) = entry else {
        return Err(invalid(&name, "expected an object with `slots` and `description`".to_owned()));
    };
    fields.insert("name".to_owned(), json!(name));
    serde_json::from_value(Value::Object(fields)).map_err(|error| invalid(&name, error.to_string()))
}

fn invalid(name: &str, message: String) -> CliError {
    CliError::input("a pool is not valid; nothing was written", vec![Fault::new(name, message)], None)
}

fn to_file(pool: Pool) -> (String, Value) {
    let entry =
        json!({"slots": pool.slots, "description": pool.description, "include_deferred": pool.include_deferred});
    (pool.name, entry)
}

fn rows(pools: &[Pool]) -> String {
    let row = |pool: &Pool| {
        let deferred = if pool.include_deferred { "yes" } else { "no" };
        let description = pool.description.clone().unwrap_or_default();
        vec![pool.name.clone(), pool.slots.to_string(), deferred.to_owned(), description]
    };
    table(&["POOL", "SLOTS", "INCLUDES DEFERRED", "DESCRIPTION"], pools.iter().map(row))
}
