//! Task instances: listing, clearing, setting their state.

use std::collections::HashSet;

use airflow_serverless_api::{
    page::limit,
    task::{ClearTaskInstances, ListTaskInstances, TaskInstanceList, UpdateTaskInstance},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Deployed;
use crate::error::{Result, Subject};

/// The task instances that a command changed.
#[derive(Deserialize)]
struct Reached {
    task_instances: Vec<Name>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Name {
    task_id: String,
    map_index: i32,
}

impl Deployed {
    /// Lists task instances of a run, in the order in which they started.
    pub async fn list_task_instances(
        &self,
        (dag_id, run_id): (&str, &str),
        query: &ListTaskInstances,
    ) -> Result<TaskInstanceList> {
        let mut found = self.dag_run(dag_id, run_id).await?.task_instances;
        if let Some(state) = query.state {
            found.retain(|task| state.is(task.state.as_deref()));
        }
        let total_entries = found.len() as i64;
        let shown = found.into_iter().skip(query.offset.unwrap_or(0) as usize).take(limit(query.limit) as usize);
        Ok(TaskInstanceList { task_instances: shown.collect(), total_entries })
    }

    /// Clears a task so that it reruns; returns the task instances that will, as the scheduler left them.
    pub async fn clear_task_instances(
        &self,
        (dag_id, run_id, task_id): (&str, &str, &str),
        request: &ClearTaskInstances,
    ) -> Result<TaskInstanceList> {
        let arguments = arguments((dag_id, run_id, task_id), request);
        self.change_tasks((Subject::Task, "clear_tasks"), (dag_id, run_id), arguments).await
    }

    /// Sets the state of a task; returns the task instances that were changed.
    pub async fn update_task_instance(
        &self,
        (dag_id, run_id, task_id): (&str, &str, &str),
        update: &UpdateTaskInstance,
    ) -> Result<TaskInstanceList> {
        let arguments = arguments((dag_id, run_id, task_id), update);
        self.change_tasks((Subject::Task, "mark_tasks"), (dag_id, run_id), arguments).await
    }

    /// Has the scheduler change task instances of a run; returns those that were changed.
    pub(super) async fn change_tasks(
        &self,
        command: (Subject, &str),
        (dag_id, run_id): (&str, &str),
        arguments: Value,
    ) -> Result<TaskInstanceList> {
        let reached: Reached = self.command(command, arguments).await?;
        let reached: HashSet<Name> = reached.task_instances.into_iter().collect();
        let mut tasks = self.dag_run(dag_id, run_id).await?.task_instances;
        tasks.retain(|task| reached.contains(&Name { task_id: task.task_id.clone(), map_index: task.map_index }));
        Ok(TaskInstanceList { total_entries: tasks.len() as i64, task_instances: tasks })
    }
}

/// Combines the fields of the request with the names of its task.
pub(super) fn arguments((dag_id, run_id, task_id): (&str, &str, &str), request: &impl Serialize) -> Value {
    let mut arguments = json!({"dag_id": dag_id, "run_id": run_id, "task_id": task_id});
    if let (Some(all), Value::Object(fields)) = (arguments.as_object_mut(), json!(request)) {
        all.extend(fields);
    }
    arguments
}
