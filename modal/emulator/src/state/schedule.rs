//! Schedules: functions that are called at certain times.

use std::str::FromStr;

use chrono::{DateTime, Days, Months, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use modal_proto::{self as pb, FunctionCallInvocationType, schedule::ScheduleOneof};
use serde::{Deserialize, Serialize};

use super::{CallOrigin, Definition, Now, State};
use crate::{error::Error, store::Record};

/// When a function is called next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Schedule {
    pub function_id: String,
    /// Seconds since 1970. Times that passed while the server did not run are made up for once.
    pub next_at: f64,
    /// The last call it made.
    pub last_call: Option<String>,
}

impl Record for Schedule {
    const KIND: &'static str = "schedule";
    fn id(&self) -> &str {
        &self.function_id
    }
}

/// The first time of a schedule after `after`, both in seconds since 1970; `None` if it has none.
pub fn next_time(schedule: &pb::Schedule, after: f64) -> Result<Option<f64>, Error> {
    let after = DateTime::<Utc>::from_timestamp_millis((after * 1000.0) as i64)
        .ok_or_else(|| Error::invalid("schedule", "the clock is out of range"))?;
    let next = match &schedule.schedule_oneof {
        None => return Ok(None),
        Some(ScheduleOneof::Cron(cron)) => next_cron(cron, after)?,
        Some(ScheduleOneof::Period(period)) => next_period(period, after)?,
    };
    Ok(Some(next.timestamp_millis() as f64 / 1000.0))
}

fn next_cron(cron: &pb::schedule::Cron, after: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    let zone = if cron.timezone.is_empty() { "UTC" } else { &cron.timezone };
    let zone = Tz::from_str(zone).map_err(|_| Error::invalid("time zone", format!("{zone:?} is unknown")))?;
    let bad =
        |error: croner::errors::CronError| Error::invalid("cron schedule", format!("{:?}: {error}", cron.cron_string));
    let pattern = Cron::from_str(&cron.cron_string).map_err(bad)?;
    let next = pattern.find_next_occurrence(&after.with_timezone(&zone), false).map_err(bad)?;
    Ok(next.with_timezone(&Utc))
}

fn next_period(period: &pb::schedule::Period, after: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    let bad = |reason: &str| Error::invalid("period", reason);
    let months = period.years.saturating_mul(12).saturating_add(period.months);
    let days = i64::from(period.weeks) * 7 + i64::from(period.days);
    let seconds = f64::from(period.hours) * 3600.0 + f64::from(period.minutes) * 60.0 + f64::from(period.seconds);
    let months = u32::try_from(months).map_err(|_| bad("it is negative"))?;
    let days = u64::try_from(days).map_err(|_| bad("it is negative"))?;
    let next = after
        .checked_add_months(Months::new(months))
        .and_then(|t| t.checked_add_days(Days::new(days)))
        .and_then(|t| t.checked_add_signed(TimeDelta::milliseconds((seconds * 1000.0) as i64)))
        .ok_or_else(|| bad("it is too long"))?;
    if next <= after { Err(bad("it is not longer than nothing")) } else { Ok(next) }
}

impl State {
    /// Installs the schedules of a newly published app; a period begins now.
    pub(super) fn install_schedules(&mut self, app_id: &str, now: Now) {
        let functions: Vec<String> =
            self.functions.values().filter(|f| f.app_id == app_id).map(|f| f.id.clone()).collect();
        for function_id in functions {
            match self.following(&function_id, now.wall) {
                Some(next_at) => {
                    let last_call = self.schedules.get(&function_id).and_then(|s| s.last_call.clone());
                    self.put_schedule(Schedule { function_id, next_at, last_call });
                }
                None if self.schedules.remove(&function_id).is_some() => self.forget::<Schedule>(&function_id),
                None => {}
            }
        }
    }

    fn following(&self, function_id: &str, after: f64) -> Option<f64> {
        let definition: &Definition = self.live_definition(function_id)?;
        // It was checked when the function was defined.
        next_time(definition.function.schedule.as_ref()?, after).ok().flatten()
    }

    fn put_schedule(&mut self, schedule: Schedule) {
        self.save(&schedule);
        self.schedules.insert(schedule.function_id.clone(), schedule);
    }

    /// Makes the calls that are due and returns when the next one is, in seconds since 1970.
    pub(super) fn fire_schedules(&mut self, now: Now) -> Option<f64> {
        let due: Vec<Schedule> = self.schedules.values().filter(|s| s.next_at <= now.wall).cloned().collect();
        for mut schedule in due {
            // From the time it was due, so that a period does not drift, unless more than one was missed.
            let next = self.following(&schedule.function_id, schedule.next_at).filter(|next| *next > now.wall);
            let Some(next_at) = next.or_else(|| self.following(&schedule.function_id, now.wall)) else {
                self.schedules.remove(&schedule.function_id);
                self.forget::<Schedule>(&schedule.function_id);
                continue;
            };
            schedule.next_at = next_at;
            if !self.is_waiting(schedule.last_call.as_deref()) {
                match self.call_by_clock(&schedule.function_id, now) {
                    Ok(call_id) => schedule.last_call = Some(call_id),
                    Err(error) => {
                        tracing::error!(function.id = schedule.function_id, %error, "a scheduled call failed")
                    }
                }
            }
            self.put_schedule(schedule);
        }
        self.schedules.values().map(|s| s.next_at).min_by(f64::total_cmp)
    }

    /// Whether its last call has not started: another one would only add to the backlog.
    fn is_waiting(&self, call_id: Option<&str>) -> bool {
        let inputs = call_id.and_then(|id| self.calls.get(id)).into_iter().flat_map(|c| &c.unfinished);
        inputs.filter_map(|id| self.inputs.get(id)).any(|input| input.task_id.is_none())
    }

    fn call_by_clock(&mut self, function_id: &str, now: Now) -> Result<String, Error> {
        let origin = CallOrigin { scheduled: true, ..CallOrigin::default() };
        let call_id = self.begin_call(function_id, FunctionCallInvocationType::Async.into(), origin, now)?;
        // Empty arguments stand for none.
        let arguments = pb::FunctionInput { data_format: pb::DataFormat::Pickle.into(), ..Default::default() };
        self.add_input(&call_id, 0, arguments, now)?;
        Ok(call_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(pattern: &str, timezone: &str) -> pb::Schedule {
        let cron = pb::schedule::Cron { cron_string: pattern.into(), timezone: timezone.into() };
        pb::Schedule { schedule_oneof: Some(ScheduleOneof::Cron(cron)) }
    }

    fn at(text: &str) -> f64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp() as f64
    }

    #[test]
    fn cron_uses_its_time_zone() {
        let next = next_time(&cron("30 2 * * *", "Europe/Oslo"), at("2026-07-01T00:00:00Z")).unwrap();
        assert_eq!(next, Some(at("2026-07-01T00:30:00Z")));
        let next = next_time(&cron("*/5 * * * *", ""), at("2026-07-01T00:00:00Z")).unwrap();
        assert_eq!(next, Some(at("2026-07-01T00:05:00Z")));
    }

    #[test]
    fn invalid_schedules_are_refused() {
        assert!(next_time(&cron("every day", ""), 0.0).is_err());
        assert!(next_time(&cron("* * * * *", "Mars/Olympus"), 0.0).is_err());
        let empty = pb::Schedule { schedule_oneof: Some(ScheduleOneof::Period(pb::schedule::Period::default())) };
        assert!(next_time(&empty, 0.0).is_err());
    }

    #[test]
    fn periods_use_the_calendar() {
        let period = pb::schedule::Period { months: 1, days: 1, seconds: 1.5, ..Default::default() };
        let schedule = pb::Schedule { schedule_oneof: Some(ScheduleOneof::Period(period)) };
        let next = next_time(&schedule, at("2026-01-31T00:00:00Z")).unwrap();
        assert_eq!(next, Some(at("2026-03-01T00:00:01Z") + 0.5));
    }
}
