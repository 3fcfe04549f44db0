//! Output of containers: followed, fetched, counted.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use modal_proto::{self as pb, FileDescriptor, app_count_logs_response::LogBucket};
use prost_types::Timestamp;

use super::{Parts, ResponseStream, seconds};
use crate::{
    error::Error,
    files::blocking,
    logs::{AppLog, Line, Position, Source},
    state::State,
};

const LONGEST_STREAM: std::time::Duration = std::time::Duration::from_secs(60);
/// The most lines in one response to a fetch.
const MAX_FETCHED: usize = 10_000;
const NANOS: u64 = 1_000_000_000;

/// Which lines are wanted. An empty field matches all.
struct Filter {
    source: i32,
    function_id: String,
    call_id: String,
    input_id: String,
    task_id: String,
    search: String,
    since: u64,
    until: u64,
}

impl Filter {
    fn matches(&self, line: &Line) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        (self.source == 0 || self.source == line.source as i32)
            && fits(&self.function_id, &line.function_id)
            && fits(&self.call_id, &line.call_id)
            && fits(&self.input_id, &line.input_id)
            && fits(&self.task_id, &line.task_id)
            && line.data.contains(&self.search)
            && (self.since..self.until).contains(&line.at)
    }
}

/// Follows the output of an app's containers until the app is done or the request's time is up.
pub fn follow(shared: &Parts, request: pb::AppGetLogsRequest) -> Result<ResponseStream<pb::TaskLogsBatch>, Error> {
    shared.read(|state| state.app(&request.app_id).map(|_| ()))?;
    let app = shared.logs.app(&request.app_id).map_err(failed())?;
    let until = Instant::now() + seconds(request.timeout).min(LONGEST_STREAM);
    // A client that starts over sends an id that is not one of this server.
    let mut position: Position = request.last_entry_id.parse().unwrap_or_default();
    let filter = Filter {
        source: request.file_descriptor,
        function_id: request.function_id,
        call_id: request.function_call_id,
        input_id: request.input_id,
        task_id: request.task_id,
        search: request.search_text,
        since: 0,
        until: u64::MAX,
    };
    let (shared, app_id) = (shared.clone(), request.app_id);
    let stream = async_stream::try_stream! {
        let mut printed = app.subscribe();
        let mut large_changes = shared.subscribe_large();
        loop {
            printed.mark_unchanged();
            large_changes.mark_unchanged();
            // Checked before the last read, so that nothing printed before the end is missed.
            let done = shared.read(|state| is_done(state, &app_id));
            let log = app.clone();
            let (lines, next) = blocking(move || log.read(position).map_err(failed())).await?;
            let quiet = lines.is_empty();
            // The output of an image's build step is in the log of the build, which the same client follows.
            let builders = shared.read(|state| state.builder_functions(&app_id));
            let is_wanted = |line: &Line| filter.matches(line) && !builders.contains(&line.function_id);
            let wanted: Vec<Line> = lines.into_iter().filter(is_wanted).collect();
            let mut batches = batches(wanted);
            // The client resumes after the last entry that it has seen.
            if let Some(last) = batches.last_mut() {
                last.entry_id = next.to_string();
            }
            position = next;
            for batch in batches {
                yield batch;
            }
            if !quiet {
                continue;
            }
            if done {
                yield pb::TaskLogsBatch { app_done: true, ..Default::default() };
                break;
            }
            let waited = tokio::select! {
                _ = printed.changed() => Waited::Changed,
                _ = large_changes.changed() => Waited::Changed,
                () = tokio::time::sleep_until(until.into()) => Waited::TimeUp,
                () = shared.close_streams.cancelled() => Waited::Stopping,
            };
            match waited {
                Waited::Changed => {}
                Waited::TimeUp => break,
                Waited::Stopping => Err(Error::ShuttingDown)?,
            }
        }
    };
    Ok(Box::pin(stream))
}

enum Waited {
    Changed,
    TimeUp,
    Stopping,
}

/// The newest lines of a time range, oldest first.
pub async fn fetch(shared: &Parts, request: pb::AppFetchLogsRequest) -> Result<pb::AppFetchLogsResponse, Error> {
    let app = log_of(shared, &request.app_id)?;
    let filter = Filter {
        source: request.source,
        function_id: request.function_id,
        call_id: request.function_call_id,
        input_id: String::new(),
        task_id: request.task_id,
        search: request.search_text,
        since: nanos(request.since.as_ref()).unwrap_or(0),
        until: nanos(request.until.as_ref()).unwrap_or(u64::MAX),
    };
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(MAX_FETCHED).min(MAX_FETCHED);
    let mut newest = VecDeque::new();
    let newest = blocking(move || {
        scan(&app, |line| {
            if filter.matches(&line) {
                newest.push_back(line);
            }
            if newest.len() > limit {
                newest.pop_front();
            }
        })?;
        Ok(newest)
    })
    .await?;
    Ok(pb::AppFetchLogsResponse { batches: batches(newest.into()) })
}

/// Counts the lines of a time range in buckets of equal length; empty buckets are left out.
pub async fn count(shared: &Parts, request: pb::AppCountLogsRequest) -> Result<pb::AppCountLogsResponse, Error> {
    let app = log_of(shared, &request.app_id)?;
    let filter = Filter {
        source: request.source,
        function_id: request.function_id,
        call_id: request.function_call_id,
        input_id: String::new(),
        task_id: request.task_id,
        search: request.search_text,
        since: nanos(request.since.as_ref()).unwrap_or(0),
        until: nanos(request.until.as_ref()).unwrap_or(u64::MAX),
    };
    let width = u64::from(request.bucket_secs.max(1));
    let buckets = blocking(move || {
        let mut buckets: BTreeMap<u64, LogBucket> = BTreeMap::new();
        scan(&app, |line| {
            if !filter.matches(&line) {
                return;
            }
            let start = line.at / NANOS / width * width;
            let bucket = buckets.entry(start).or_default();
            match line.source {
                Source::Stdout => bucket.stdout_logs += 1,
                Source::Stderr => bucket.stderr_logs += 1,
                Source::System => bucket.system_logs += 1,
            }
        })?;
        Ok(buckets)
    })
    .await?;
    let buckets = buckets.into_iter().map(|(start, bucket)| {
        let start = Timestamp { seconds: i64::try_from(start).unwrap_or(i64::MAX), nanos: 0 };
        LogBucket { bucket_start_at: Some(start), ..bucket }
    });
    Ok(pb::AppCountLogsResponse { buckets: buckets.collect(), app_id: request.app_id })
}

fn log_of(shared: &Parts, app_id: &str) -> Result<std::sync::Arc<AppLog>, Error> {
    shared.read(|state| state.app(app_id).map(|_| ()))?;
    shared.logs.app(app_id).map_err(failed())
}

fn failed() -> impl FnOnce(std::io::Error) -> Error {
    Error::io("read", "the app's log")
}

/// Calls `look` with every line, oldest first.
fn scan(app: &AppLog, mut look: impl FnMut(Line)) -> Result<(), Error> {
    let mut position = Position::default();
    loop {
        let (lines, next) = app.read(position).map_err(failed())?;
        if lines.is_empty() {
            return Ok(());
        }
        lines.into_iter().for_each(&mut look);
        position = next;
    }
}

fn nanos(time: Option<&Timestamp>) -> Option<u64> {
    let time = time?;
    Some(u64::try_from(time.seconds).ok()? * NANOS + u64::try_from(time.nanos).ok()?)
}

fn is_done(state: &State, app_id: &str) -> bool {
    state.app(app_id).is_ok_and(|app| app.is_stopped()) && state.tasks_of_app(app_id).next().is_none()
}

/// Lines in the SDK's form: consecutive lines of one container are one batch.
fn batches(lines: Vec<Line>) -> Vec<pb::TaskLogsBatch> {
    let mut batches: Vec<pb::TaskLogsBatch> = Vec::new();
    for line in lines {
        if batches.last().is_none_or(|batch| batch.task_id != line.task_id || batch.input_id != line.input_id) {
            batches.push(pb::TaskLogsBatch {
                task_id: line.task_id.clone(),
                function_id: line.function_id.clone(),
                input_id: line.input_id.clone(),
                ..Default::default()
            });
        }
        let Some(batch) = batches.last_mut() else { continue };
        batch.items.push(pb::TaskLogs {
            data: line.data,
            timestamp: line.at as f64 / NANOS as f64,
            timestamp_ns: line.at,
            file_descriptor: FileDescriptor::try_from(line.source as i32).unwrap_or_default().into(),
            function_call_id: line.call_id,
            input_id: line.input_id,
            container_id: line.task_id,
            ..Default::default()
        });
    }
    batches
}
