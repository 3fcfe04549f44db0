"""No generated DAG file, plugin or command stops the scheduler, nor does one that once did."""

from __future__ import annotations

import pytest

from environment import DATABASES, deployed
from generated.cases import Case, named
from generated.dag_files import LATE, late, module
from generated.generation import generate
from generated.plugin_files import timetable
from generated.trial import Canary, Outcome, validators
from generated.values import MARK

COUNT, SEED = 60, 2026
RUN = ({"kind": "unpause", "dag_id": MARK}, {"kind": "trigger", "dag_id": MARK})
NEXT = "next_dagrun_info(self, *, last_automated_data_interval, restriction)"
PLAIN = "EmptyOperator(task_id='a')"


def late_case(arguments: str, task: str = PLAIN) -> Case:
    """A DAG file that the upload accepts, as it is odd only once a Variable is there."""
    return Case({f"{MARK}.py": module(late(MARK, f"with DAG({MARK!r}{arguments}):\n    {task}\n"))}, (LATE, *RUN))


KEPT = (
    timetable(NEXT, "raise SystemExit(1)", 2, later=RUN),
    timetable(NEXT, "raise OperationalError('of a database of its own', None, Exception())", 2, later=RUN),
    timetable("infer_manual_data_interval(self, *, run_after)", "raise SystemExit(1)", 0, later=RUN),
    Case(
        {
            f"{MARK}/dag.py": f"from airflow.sdk import DAG\ndag = DAG({MARK!r})\n",
            f"{MARK}/.airflowignore": "!\n[z-a]\n\\\n",
        }
    ),
    late_case("", "with TaskGroup('g', ui_color='\\0'):\n        EmptyOperator(task_id='a')"),
    late_case("", "EmptyOperator(task_id='a', pool_slots=2**31)"),
    late_case(", max_active_tasks=2**31"),
    late_case("", "EmptyOperator(task_id='a', executor_config=True)"),
    late_case(", description='\\udc80'"),
)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Those cases that an upload accepts."""
    with validators(tmp_path_factory.mktemp("uploads")) as validator:
        cases = validator.accepted(named([*KEPT, *generate(COUNT, SEED)]))
    assert [case for case in named(KEPT) if case not in cases] == []
    assert COUNT / 2 < len(cases) - len(KEPT) < COUNT
    return cases


@pytest.mark.parametrize("database", DATABASES)
def test_accepted_cases_do_not_stop_the_scheduler(accepted: list[Case], database: str) -> None:
    outcome = Outcome()
    with deployed(database) as environment:
        canary = Canary(environment)
        # Fewer batches than usual: each costs some ticks.
        for half in (accepted[::2], accepted[1::2]):
            canary.run(half, outcome)
    assert outcome.left_out == []
    assert outcome.quarantined
