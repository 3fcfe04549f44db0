"""Plugins with DAG files that use them, and folders with an `.airflowignore`."""

from __future__ import annotations

from hypothesis import strategies as st

from generated.cases import Case, Command
from generated.commands import commands
from generated.dag_files import DAG_ARGUMENTS, arguments, module
from generated.values import MARK, Expressions, anything, moments

PLUGIN = """
import math, sys
from datetime import UTC, datetime, timedelta
import pendulum
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from sqlalchemy.exc import OperationalError

MOMENT = pendulum.datetime(2026, 1, 1)
"""
ENDS: Expressions = st.one_of(
    st.sampled_from(
        ("raise ValueError('\\udc80')", "raise SystemExit(1)", "raise RecursionError", "raise GeneratorExit")
    ),
    st.sampled_from(
        ("raise StopIteration", "raise MemoryError", "raise TimeoutError", "raise BaseException", "return None")
    ),
    st.just("raise OperationalError('of a database of its own', None, Exception())"),
    anything.map("return {}".format).map(lambda text: text.replace("Decimal('1.5')", "1.5")),
    moments.map("return DagRunInfo.interval(MOMENT, {})".format).map(
        lambda text: text.replace("ZoneInfo", "pendulum.timezone")
    ),
    st.just("return DagRunInfo.exact(MOMENT.add(years=7000))"),
    st.just("return DagRunInfo.exact(MOMENT)"),
)
METHODS = (
    "infer_manual_data_interval(self, *, run_after)",
    "next_dagrun_info(self, *, last_automated_data_interval, restriction)",
    "next_dagrun_info_v2(self, *, last_dagrun_info, restriction)",
    "serialize(self)",
    "generate_run_id(self, **keywords)",
    "validate(self)",
)


def timetable(method: str, end: str, calls: int, more: str = "", later: tuple[Command, ...] = ()) -> Case:
    """A plugin with a timetable and its DAG. After so many calls in a process, `method` ends with this statement."""
    name, (called, _, parameters) = MARK.title(), method.partition("(")
    names = [word.strip("*),") for word in parameters.split() if word.strip("*),") not in ("", "self")]
    passed = ", ".join(f"**{word}" if word == "keywords" else f"{word}={word}" for word in names)
    plugin = f"""{PLUGIN}
class Plain(Timetable):
    def infer_manual_data_interval(self, *, run_after):
        return DataInterval.exact(run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        last = last_automated_data_interval
        return DagRunInfo.exact(MOMENT if last is None else last.end.add(days=1))


class {name}(Plain):
    calls = 0

    def {method}:
        {name}.calls += 1
        if {name}.calls > {calls}:
            {end}
        return super().{called}({passed})


class {name}Plugin(AirflowPlugin):
    name = {MARK!r}
    timetables = [{name}]
"""
    head = f"from {MARK}_plugin import {name}\n\nwith DAG({MARK!r}, schedule={name}(){more}):"
    dag = f"{head}\n    EmptyOperator(task_id='a')\n"
    return Case({f"plugins/{MARK}_plugin.py": plugin, f"{MARK}.py": module(dag)}, later)


timetables = st.builds(
    timetable,
    st.sampled_from(METHODS),
    ENDS,
    st.sampled_from((0, 0, 1, 2, 4)),
    arguments({name: table for name, table in DAG_ARGUMENTS.items() if name != "schedule"}, 1),
    commands(MARK).map(tuple),
)


@st.composite
def extensions(draw: st.DrawFn) -> Case:
    """A plugin with a listener or a weight strategy, and a DAG for it."""
    name, end = MARK.title(), draw(ENDS)
    hook = draw(st.sampled_from((
        "on_dag_run_running(dag_run, msg)", "on_dag_run_success(dag_run, msg)", "on_dag_run_failed(dag_run, msg)",
        "on_asset_created(asset)", "on_asset_changed(asset)", "on_new_dag_import_error(filename, stacktrace)",
        "on_task_instance_failed(previous_state, task_instance, error)", "on_starting(component)",
    )))  # fmt: skip
    is_listener = draw(st.booleans())
    body = (
        f"class {name}:\n    @hookimpl\n    def {hook.replace('(', '(self, ')}:\n        {end}\n"
        if is_listener
        else (f"class {name}(PriorityWeightStrategy):\n    def get_weight(self, ti):\n        {end}\n")
    )
    kept = f"listeners = [{name}()]" if is_listener else f"priority_weight_strategies = [{name}]"
    plugin = f"{PLUGIN}\n{body}\nclass {name}Plugin(AirflowPlugin):\n    name = {MARK!r}\n    {kept}\n"
    imported, rule = ("", "") if is_listener else (f"from {MARK}_plugin import {name}\n\n", f", weight_rule={name}()")
    task = f"EmptyOperator(task_id='a', outlets=[Asset({MARK!r})]{rule})"
    dag = module(f"{imported}with DAG({MARK!r}, schedule=None):\n    {task}\n")
    return Case({f"plugins/{MARK}_plugin.py": plugin, f"{MARK}.py": dag}, tuple(draw(commands(MARK))))


@st.composite
def ignores(draw: st.DrawFn) -> Case:
    """A folder with an `.airflowignore` of its own."""
    pattern = st.sampled_from(
        (
            "*",
            "!",
            "!*",
            "[",
            "[a",
            "[!",
            "(",
            "**",
            "/",
            "//",
            "#",
            "\\",
            "a\\",
            "?",
            "{a",
            "[z-a]",
            "\udc80",
            "\0",
            "x" * 9_000,
            "***/**/*" * 9,
            "[[:alpha:]]",
        )
    )
    lines = draw(st.lists(st.one_of(pattern, st.text(max_size=12)), max_size=4))
    dag = f"from airflow.sdk import DAG\ndag = DAG('{MARK}')\n"
    return Case({f"{MARK}/dag.py": dag, f"{MARK}/.airflowignore": "\n".join(lines)})
