"""`run_triggers`: a triggerer that exists only while a task is deferred."""

from __future__ import annotations

import time
from typing import Any

import modal

from airflow_serverless.worker.processes import Processes
from airflow_serverless.worker.worker import Worker

LONGEST_SECONDS = 12 * 3600.0
"""After this it hands over to a fresh one, well within its timeout."""


def run_triggers() -> dict[str, Any]:
    """Run what the scheduler names in the Dict, until it names nothing more; returns {"events": how many were told}."""
    worker = Worker.of_process()
    from airflow_serverless.worker.trigger_supervisor import TriggerSupervisor

    triggers = worker.state.triggers()
    if triggers is None or not triggers["created"]:
        return {"events": 0}
    with Processes() as processes:
        supervisor = TriggerSupervisor.begin(
            worker, modal.current_function_call_id(), triggers["generation"], time.monotonic() + LONGEST_SECONDS
        )
        try:
            supervisor.run()
        finally:
            supervisor.kill(escalation_delay=10, force=True)
            processes.end()
            supervisor.publish_logs()
    if not supervisor.is_alive_at_end:
        raise RuntimeError("the process that runs the triggers died; its log is above")
    return {"events": supervisor.told}
