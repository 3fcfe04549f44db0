//! `cost`: estimates the cost of an environment on Modal from its metadata.

use airflow_serverless_api::cost::{Cost, CostItem};

use super::Outcome;
use crate::{
    cli::EstimateCost,
    error::ExitStatus,
    printer::{Printer, date, table},
    session,
};

pub async fn cost(arguments: EstimateCost, printer: &Printer) -> Outcome {
    let daemon = session::connect(printer).await?;
    printer.result(&daemon.estimate_cost(&arguments.environment.name, arguments.days).await?, estimate);
    Ok(ExitStatus::Success)
}

fn estimate(cost: &Cost) -> String {
    let row = |(name, item): (&str, CostItem)| {
        let seconds = format!("{:.0} s", item.container_seconds);
        vec![name.to_owned(), item.calls.to_string(), seconds, format!("${:.4}", item.usd)]
    };
    let rows = [("tasks", cost.tasks), ("scheduler", cost.scheduler), ("cron", cost.gate)];
    let assumptions: String = cost.assumptions.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "from {} to {} UTC\n\n{}\n\n${:.4} in all, ${:.2} in 30 days at this rate. An estimate, with\n{assumptions}",
        date(Some(cost.from)),
        date(Some(cost.to)),
        table(&["WHAT", "CALLS", "CONTAINERS", "COST"], rows.map(row)),
        cost.total_usd,
        cost.monthly_usd,
    )
}
