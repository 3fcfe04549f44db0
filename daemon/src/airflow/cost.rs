//! Estimates the cost of an environment from the run times of its tasks.

use airflow_serverless_api::cost::{Cost, CostItem, EstimateCost};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::json;
use sqlite_schema::row;

use super::Deployed;
use crate::error::Result;

/// Modal's list prices in US dollars, for one physical core and one GiB.
const CORE_SECOND: f64 = 0.000_013_1;
const GIB_SECOND: f64 = 0.000_002_22;
/// What Modal reserves for a function without a request of its own; higher usage is billed.
const CORES: f64 = 0.125;
/// Memory of a container with Airflow loaded, and of one without.
const AIRFLOW_GIB: f64 = 0.35;
const GATE_GIB: f64 = 0.125;
/// How long containers wait for the next call (`modal_functions/airflow_serverless/app.py`).
const IDLE_SECONDS: f64 = 90.0;
const GATE_IDLE_SECONDS: f64 = 2.0;
/// Duration of one run of the gate, including its start.
const GATE_SECONDS: f64 = 1.0;
const DAYS: u32 = 30;
const LONGEST_DAYS: u32 = 90;
const DAY_SECONDS: f64 = 86_400.0;

const TRIES: &str = "SELECT start_date, end_date FROM task_instance WHERE start_date >= $1
                     UNION ALL SELECT start_date, end_date FROM task_instance_history WHERE start_date >= $1";

row! {
    #[derive(Deserialize)]
    struct Try {
        start_date: DateTime<Utc>,
        end_date: Option<DateTime<Utc>>,
    }
}

impl Deployed {
    /// Estimates the cost of the last days.
    pub async fn cost(&self, query: EstimateCost) -> Result<Cost> {
        let to = self.airflow.base.now();
        let earliest = to - TimeDelta::days(query.days.unwrap_or(DAYS).clamp(1, LONGEST_DAYS).into());
        let from = earliest.max(self.environment.created_at);
        let metadata = self.metadata().await?;
        let tries: Vec<Try> = metadata.query(TRIES, &[json!(from.format("%Y-%m-%d %H:%M:%S").to_string())]).await?;
        let seconds = |at: DateTime<Utc>| (at - from).num_milliseconds() as f64 / 1000.0;
        let spans = tries.iter().map(|run| (seconds(run.start_date), seconds(run.end_date.unwrap_or(to)))).collect();
        Ok(estimate(spans, (from, to), self.environment.config.scheduler.interval_seconds.into()))
    }
}

fn estimate(mut spans: Vec<(f64, f64)>, (from, to): (DateTime<Utc>, DateTime<Utc>), interval: f64) -> Cost {
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let period = (to - from).num_seconds().max(1) as f64;
    let calls = spans.len() as u64;
    let airflow = CORES * CORE_SECOND + AIRFLOW_GIB * GIB_SECOND;
    let item =
        |calls, container_seconds, price: f64| CostItem { calls, container_seconds, usd: container_seconds * price };
    let tasks = item(calls, lives(&spans, usize::MAX), airflow);
    let scheduler = item(calls, lives(&spans, 1), airflow);
    let looks = (period / interval).floor();
    let gate = item(
        looks as u64,
        looks * (GATE_SECONDS + GATE_IDLE_SECONDS).min(interval),
        CORES * CORE_SECOND + GATE_GIB * GIB_SECOND,
    );
    let total_usd = tasks.usd + scheduler.usd + gate.usd;
    let monthly_usd = total_usd / period * 30.0 * DAY_SECONDS;
    Cost { from, to, tasks, scheduler, gate, total_usd, monthly_usd, assumptions: assumptions() }
}

/// Total container lifetime in seconds for these spans (sorted by start). Each span takes the container that has been
/// idle for the shortest time, or a new one if none is idle and there are fewer than `limit`.
fn lives(spans: &[(f64, f64)], limit: usize) -> f64 {
    let (mut total, mut busy_until) = (0.0, Vec::<f64>::new());
    for (start, end) in spans {
        let (gone, alive): (Vec<f64>, _) = busy_until.into_iter().partition(|until| until + IDLE_SECONDS <= *start);
        busy_until = alive;
        total += gone.len() as f64 * IDLE_SECONDS;
        let waiting =
            busy_until.iter().enumerate().filter(|(_, until)| *until <= start).max_by(|a, b| a.1.total_cmp(b.1));
        match waiting.map(|(index, _)| index) {
            Some(index) => {
                total += end - busy_until[index];
                busy_until[index] = *end;
            }
            None if busy_until.len() < limit => {
                total += end - start;
                busy_until.push(*end);
            }
            // All containers are busy: the first one runs until the last of its calls ends.
            None => {
                for until in busy_until.iter_mut().take(1).filter(|until| **until < *end) {
                    total += end - *until;
                    *until = *end;
                }
            }
        }
    }
    total + busy_until.len() as f64 * IDLE_SECONDS
}

fn assumptions() -> Vec<String> {
    vec![
        format!("list prices of ${CORE_SECOND} per core and second and ${GIB_SECOND} per GiB and second"),
        format!("containers use {CORES} cores, which Modal reserves; those that compute more cost more"),
        format!("a container with Airflow takes {AIRFLOW_GIB} GiB and waits {IDLE_SECONDS} s for another call"),
        format!("each look of the cron takes {GATE_SECONDS} s and its container waits {GATE_IDLE_SECONDS} s"),
        "Volumes, network and a PostgreSQL server of yours are not included".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_containers_are_reused_in_the_estimate() {
        type Case<'a> = (&'a [(f64, f64)], usize, f64);
        let cases: [Case<'_>; 6] = [
            (&[], 9, 0.0),
            (&[(0.0, 10.0)], 9, 100.0),
            // The second span reuses the first one's container, which was idle for 20 s.
            (&[(0.0, 10.0), (30.0, 40.0)], 9, 130.0),
            // Two concurrent spans need two containers.
            (&[(0.0, 10.0), (5.0, 10.0)], 9, 195.0),
            // The first one's container is gone.
            (&[(0.0, 10.0), (200.0, 210.0)], 9, 200.0),
            (&[(0.0, 10.0), (5.0, 20.0)], 1, 110.0),
        ];
        for (spans, limit, expected) in cases {
            assert_eq!(lives(spans, limit), expected, "{spans:?}");
        }
    }

    #[test]
    fn environment_without_tasks_costs_only_the_gate() {
        let to = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let cost = estimate(Vec::new(), (to - TimeDelta::days(30), to), 60.0);
        assert_eq!((cost.tasks, cost.gate.calls), (CostItem::default(), 43_200));
        assert!((cost.monthly_usd - cost.gate.usd).abs() < 1e-9 && cost.monthly_usd < 0.5, "{cost:?}");
    }
}
