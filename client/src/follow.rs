//! Follows operations and runs: redraws in place on a terminal, otherwise prints line by line.

use std::{collections::HashMap, time::Duration};

use airflow_serverless_api::{
    backfill::{BackfillDetail, BackfillRun},
    environment::EnvironmentName,
    operation::{Operation, OperationState, Step, StepState},
    run::{DagRunDetail, TaskInstance},
};
use console::{style, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use crate::{
    daemon::Daemon,
    error::{CliError, ExitStatus},
    printer::{Printer, date, seconds, state, table},
};

/// Poll interval for a run; a request is cheap for the daemon.
const RUN_POLL: Duration = Duration::from_millis(150);
const FRAME: Duration = Duration::from_millis(100);

/// Shows the steps until the operation has ended.
pub async fn operation(daemon: &Daemon, mut operation: Operation, printer: &Printer) -> Result<Operation, CliError> {
    let mut view = StepView::new(printer);
    loop {
        view.show(&operation.steps);
        if operation.state != OperationState::Running {
            return Ok(operation);
        }
        operation = daemon.follow_operation(operation.id, operation.revision).await?;
    }
}

/// Returns the exit status of a command that waited for an operation.
pub fn status(operation: &Operation) -> ExitStatus {
    if operation.state == OperationState::Succeeded { ExitStatus::Success } else { ExitStatus::Failure }
}

/// Returns why an ended operation did not succeed, and how to proceed.
pub fn shortfall(operation: &Operation) -> Option<String> {
    let reason = operation.error.as_deref().unwrap_or_default();
    match operation.state {
        OperationState::Running | OperationState::Succeeded => None,
        OperationState::Cancelled => Some(reason.to_owned()),
        OperationState::Failed => Some(format!(
            "{reason}\nThe daemon retries; `airflow-serverless env show --env {}` shows the progress.",
            operation.environment
        )),
    }
}

struct StepView<'a> {
    printer: &'a Printer,
    bars: MultiProgress,
    /// The bars of the steps that have begun.
    shown: Vec<ProgressBar>,
}

impl<'a> StepView<'a> {
    fn new(printer: &'a Printer) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::term(printer.stderr.clone(), 10));
        Self { printer, bars, shown: Vec::new() }
    }

    fn show(&mut self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.state != StepState::Pending) {
            if index >= self.shown.len() {
                self.begin();
            }
            let bar = &self.shown[index];
            if bar.is_finished() {
                continue;
            }
            let line = describe(step);
            if step.state == StepState::Running {
                if !self.printer.is_live() && step.detail.is_some() && bar.message() != line {
                    self.printer.note(&format!("  {line}"));
                }
                bar.set_message(line);
            } else if self.printer.is_live() {
                // Printed as a normal line; only bars of running steps are redrawn.
                let _ = self.bars.println(line);
                bar.finish_and_clear();
            } else {
                bar.finish();
                self.printer.note(&line);
            }
        }
    }

    fn begin(&mut self) {
        let bar =
            if self.printer.is_live() { self.bars.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
        bar.enable_steady_tick(FRAME);
        self.shown.push(bar);
    }
}

pub fn describe(step: &Step) -> String {
    let mark = match step.state {
        StepState::Succeeded => style("✓").for_stderr().green(),
        StepState::Failed => style("✗").for_stderr().red(),
        StepState::Running | StepState::Pending => style(""),
    };
    let detail = step.detail.as_ref().map(|detail| format!(": {}", style(detail).for_stderr().dim()));
    format!("{mark} {}{}", step.title, detail.unwrap_or_default()).trim_start().to_owned()
}

/// Shows the tasks of a run until it has ended.
pub async fn run(
    daemon: &Daemon,
    environment: &EnvironmentName,
    mut detail: DagRunDetail,
    printer: &Printer,
) -> Result<DagRunDetail, CliError> {
    let mut view = RunView { printer, drawn: String::new(), states: HashMap::new() };
    loop {
        view.show(&detail);
        if detail.run.is_finished() {
            return Ok(detail);
        }
        tokio::time::sleep(RUN_POLL).await;
        detail = daemon.get_dag_run(environment, &detail.run.dag_id, &detail.run.dag_run_id).await?;
    }
}

struct RunView<'a> {
    printer: &'a Printer,
    /// The table currently on the terminal.
    drawn: String,
    /// The last shown state of each task, for output line by line.
    states: HashMap<(String, i32), Option<String>>,
}

impl RunView<'_> {
    fn show(&mut self, detail: &DagRunDetail) {
        if self.printer.is_live() {
            self.redraw(detail);
        } else {
            self.tell_changes(detail);
        }
    }

    fn redraw(&mut self, detail: &DagRunDetail) {
        let size = self.printer.stderr.size();
        let mut shown = detail.task_instances.clone();
        if shown.len() + 2 > usize::from(size.0) {
            // If there is no room for all tasks, running ones come first.
            shown.sort_by_key(|task| task.state.as_deref() != Some("running"));
        }
        let text = if detail.run.is_finished() { String::new() } else { tasks(&shown) };
        let text = fitted(&text, size);
        if text == self.drawn {
            return;
        }
        // A closed terminal needs no redraw.
        let _ = self.printer.stderr.clear_last_lines(self.drawn.lines().count());
        if !text.is_empty() {
            let _ = self.printer.stderr.write_line(&text);
        }
        self.drawn = text;
    }

    fn tell_changes(&mut self, detail: &DagRunDetail) {
        for task in &detail.task_instances {
            let key = (task.task_id.clone(), task.map_index);
            if self.states.get(&key) != Some(&task.state) {
                if let Some(state) = &task.state {
                    self.printer.note(&format!("{} {state}", name(task)));
                }
                self.states.insert(key, task.state.clone());
            }
        }
    }
}

/// Truncates a text to what fits the terminal and can be cleared line by line: taller text would scroll away, and wider
/// lines would wrap.
fn fitted(text: &str, (rows, columns): (u16, u16)) -> String {
    // The cursor takes a line of its own below.
    let room = usize::from(rows).saturating_sub(1).max(1);
    let total = text.lines().count();
    let shown = if total > room { room - 1 } else { total };
    let cut = |line: &str| truncate_str(line, usize::from(columns), "…").into_owned();
    let mut lines: Vec<String> = text.lines().take(shown).map(cut).collect();
    if total > shown {
        lines.push(cut(&format!("… and {} more", total - shown)));
    }
    lines.join("\n")
}

/// Prints the changes of a backfill's runs until it is completed, one per line.
pub async fn backfill(
    daemon: &Daemon,
    environment: &EnvironmentName,
    mut detail: BackfillDetail,
    printer: &Printer,
) -> Result<BackfillDetail, CliError> {
    let mut states: HashMap<String, String> = HashMap::new();
    loop {
        for run in &detail.dag_runs {
            let (name, now) = (name_of_date(run), run.state.clone().unwrap_or_default());
            if !now.is_empty() && states.get(&name) != Some(&now) {
                printer.note(&format!("{name} {}", state(Some(&now))));
                states.insert(name, now);
            }
        }
        if detail.backfill.completed_at.is_some() {
            return Ok(detail);
        }
        tokio::time::sleep(RUN_POLL).await;
        detail = daemon.get_backfill(environment, detail.backfill.id).await?;
    }
}

/// Returns the logical date or the partition of a run.
pub fn name_of_date(run: &BackfillRun) -> String {
    run.partition_key.clone().unwrap_or_else(|| date(run.logical_date))
}

/// Formats the table of a run's tasks.
pub fn tasks(tasks: &[TaskInstance]) -> String {
    let row = |task: &TaskInstance| {
        vec![name(task), state(task.state.as_deref()), task.try_number.to_string(), seconds(task.duration)]
    };
    table(&["TASK", "STATE", "TRY", "DURATION"], tasks.iter().map(row))
}

/// Returns the name of a task, with the index of a mapped instance.
pub fn name(task: &TaskInstance) -> String {
    if task.map_index < 0 { task.task_id.clone() } else { format!("{}[{}]", task.task_id, task.map_index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_to_the_terminal_size() {
        let text = "TASK\nfirst\nsecond\nthird";
        for (rows, expected) in [
            (50, text),
            (5, text),
            (4, "TASK\nfirst\n… and 2 more"),
            (3, "TASK\n… and 3 more"),
            (2, "… and 4 more"),
            (0, "… and 4 more"),
        ] {
            assert_eq!(fitted(text, (rows, 80)), expected, "{rows}");
        }
        assert_eq!(fitted("", (24, 80)), "");
        let colored = format!("wide {} line", style("red").red().force_styling(true));
        let cut = fitted(&colored, (24, 7));
        assert_eq!((console::measure_text_width(&cut), cut.ends_with('…')), (7, false), "{cut:?}");
        assert_eq!(console::strip_ansi_codes(&cut), "wide r…");
    }
}
