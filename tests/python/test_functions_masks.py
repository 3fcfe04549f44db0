"""Values of an environment's own variables are masked in logs if their names are sensitive by Airflow's rules."""

from __future__ import annotations

import pytest

from environment import SETTINGS, deployed
from local_modal import wait_until

DAG = """
import logging, os
from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

def values():
    return f"{os.environ['PARTNER_API_KEY']} {os.environ['PARTNER_NAME']}"

def called(context):
    print("callback", values())

class Says(BaseTrigger):
    def serialize(self):
        return "says.Says", {}

    async def run(self):
        logging.getLogger("own").warning("trigger %s", values())
        yield TriggerEvent(1)

class Defers(BaseOperator):
    def execute(self, context):
        print("task", values())
        self.defer(trigger=Says(), method_name="resume")

    def resume(self, context, event=None):
        logging.getLogger("own").info("resumed %s", values())
        raise ValueError(values())

with DAG("says", schedule=None, on_failure_callback=called):
    Defers(task_id="defers")
"""


def test_sensitive_variables_are_masked_in_all_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PARTNER_API_KEY": "k3y-0f-partner", "PARTNER_NAME": "n4me-of-partner"}
    monkeypatch.setitem(SETTINGS, "env", list(variables))
    limits = {"parallelism": 4, "task_timeout": 60}
    with deployed("sqlite", executor=limits, **variables) as environment:
        environment.upload("says.py", DAG)
        environment.command("says", kind="trigger", dag_id="says", run_id="says", conf={})
        environment.call("run_tick", "test")

        def said() -> str:
            return "\n".join(log.read_text() for log in environment.volumes("logs/**/*.log"))

        for words in ("task", "trigger", "resumed", "callback"):
            wait_until(lambda: f"{words} *** n4me-of-partner" in said(), f"what the {words} says", 120)  # noqa: B023
        assert "*** n4me-of-partner" in said().partition("ValueError")[2], said()
        assert variables["PARTNER_API_KEY"] not in said()
