"""DAG files with one DAG, whose arguments and tasks are odd."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from hypothesis import strategies as st

from generated import values
from generated.cases import Case, Command
from generated.commands import commands
from generated.values import MARK, Expressions, anything, booleans, callbacks, integers, moments, numbers, spans, texts

IMPORTS = """
import math
import sys
import pendulum
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from zoneinfo import ZoneInfo
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger, TimeDeltaTrigger
from airflow.sdk import DAG, Asset, AssetAlias, AssetOrTimeSchedule, AsyncCallback, BaseOperator, DeadlineAlert
from airflow.sdk import CronDataIntervalTimetable, CronPartitionTimetable, CronTriggerTimetable, DeadlineReference
from airflow.sdk import DeltaDataIntervalTimetable, DeltaTriggerTimetable, EventsTimetable, MultipleCronTriggerTimetable
from airflow.sdk import ExceptionRetryPolicy, Param, PartitionedAssetTimetable, PartitionedAtRuntime, PokeReturnValue
from airflow.sdk import RetryAction, RetryRule, TaskGroup, Variable, WeightRule, chain, get_current_context, task
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException
from dateutil.relativedelta import relativedelta
""".strip().splitlines()
DEFINITIONS = """
def called(*arguments, **keywords): ...


def raises(*arguments, **keywords):
    raise ValueError("\\udc80")


def leaves(*arguments, **keywords):
    sys.exit(3)


async def awaits(**keywords): ...


class Defers(BaseOperator):
    def __init__(self, *, trigger=None, timeout=None, **keywords):
        super().__init__(**keywords)
        self.trigger, self.timeout = trigger, timeout

    def execute(self, context):
        trigger = self.trigger() if self.trigger else TimeDeltaTrigger(timedelta(0))
        self.defer(trigger=trigger, method_name="resume", timeout=self.timeout)

    def resume(self, context, event=None): ...
""".strip().split("\n\n\n")


def module(body: str) -> str:
    """A Python file: the body after what it uses. To import all of it takes as long as to parse the file."""
    used = [text for text in DEFINITIONS if set(re.findall(r"(?:def|class) (\w+)", text.split("(")[0])) & _words(body)]
    body = "\n\n\n".join([*used, body])
    imports = [line for line in IMPORTS if _words(line.rpartition("import ")[2]) & _words(body)]
    return "\n".join([*imports, "", "", body])


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


# {argument: (how often it is chosen, its values)}
DAG_ARGUMENTS: dict[str, tuple[int, Expressions]] = {
    "schedule": (6, values.schedules),
    "start_date": (4, moments),
    "end_date": (2, moments),
    "catchup": (2, booleans),
    "dagrun_timeout": (2, spans.filter(lambda text: "-" not in text)),
    "max_active_runs": (1, integers),
    "max_active_tasks": (1, integers),
    "max_consecutive_failed_dag_runs": (1, integers),
    "tags": (
        1,
        st.one_of(
            st.lists(texts, max_size=3).map(_listed := lambda found: f"[{', '.join(found)}]"),
            st.just("[f'tag {n} of case0000' for n in range(3_000)]"),
        ),
    ),
    "description": (1, texts),
    "doc_md": (1, texts),
    "dag_display_name": (1, texts),
    "params": (
        2,
        st.one_of(
            st.builds("{{{}: {}}}".format, texts, anything),
            st.builds("{{'x': Param({}, type='integer', minimum={}, description={})}}".format, numbers, numbers, texts),
            st.sampled_from(("{'x': Param()}", "{'x': Param(None, type='string')}", "{'x': {'y': [math.nan] * 500}}")),
        ),
    ),
    "default_args": (
        2,
        st.builds(
            "{{{!r}: {}}}".format,
            st.sampled_from(
                (
                    "retries",
                    "retry_delay",
                    "start_date",
                    "owner",
                    "pool",
                    "execution_timeout",
                    "nonsense",
                    "depends_on_past",
                )
            ),
            st.one_of(anything, spans, moments),
        ),
    ),
    "on_success_callback": (1, callbacks),
    "on_failure_callback": (1, callbacks),
    "deadline": (3, st.one_of(values.deadlines, st.lists(values.deadlines, max_size=3).map(_listed))),
    "owner_links": (
        1,
        st.builds("{{{}: {}}}".format, texts, st.one_of(*[st.just("'https://a.example/x'")] * 4, texts)),
    ),
    "is_paused_upon_creation": (2, booleans),
    "fail_fast": (1, booleans),
    "render_template_as_native_obj": (1, booleans),
    "template_searchpath": (1, texts),
    "user_defined_macros": (1, st.builds("{{{}: {}}}".format, texts, anything)),
    "jinja_environment_kwargs": (1, st.builds("{{'trim_blocks': {}}}".format, anything)),
    "access_control": (1, st.builds("{{{}: {{'can_read'}}}}".format, texts)),
    "allowed_run_types": (
        1,
        st.sampled_from(("'manual'", "['scheduled']", "[]", "['asset_triggered']", "['manual', 'backfill']")),
    ),
    "rerun_with_latest_version": (1, booleans),
    "disable_bundle_versioning": (1, booleans),
}
TASK_ARGUMENTS: dict[str, tuple[int, Expressions]] = {
    "owner": (1, texts),
    "email": (1, st.one_of(texts, st.just("['a@b.example'] * 2_000"))),
    "retries": (2, integers),
    "retry_delay": (3, st.one_of(spans, numbers)),
    "retry_exponential_backoff": (3, st.one_of(numbers, booleans)),
    "max_retry_delay": (2, st.one_of(spans, numbers)),
    "start_date": (2, moments),
    "end_date": (2, moments),
    "depends_on_past": (1, booleans),
    "ignore_first_depends_on_past": (1, booleans),
    "wait_for_downstream": (1, booleans),
    "params": (1, DAG_ARGUMENTS["params"][1]),
    "priority_weight": (3, integers),
    "weight_rule": (
        1,
        st.sampled_from(("'absolute'", "'upstream'", "'downstream'", "'nonsense'", "WeightRule.ABSOLUTE")),
    ),
    "queue": (1, texts),
    "pool": (3, st.one_of(texts, st.just(repr(MARK)))),
    "pool_slots": (2, integers),
    "execution_timeout": (2, spans),
    "on_execute_callback": (1, callbacks),
    "on_failure_callback": (1, callbacks),
    "on_success_callback": (1, callbacks),
    "on_retry_callback": (1, callbacks),
    "on_skipped_callback": (1, callbacks),
    "trigger_rule": (
        2,
        st.sampled_from(
            tuple(
                map(
                    repr,
                    (
                        "all_success",
                        "all_failed",
                        "all_done",
                        "one_failed",
                        "none_skipped",
                        "always",
                        "none_failed_min_one_success",
                        "all_done_setup_success",
                        "one_done",
                        "all_skipped",
                        "all_done_min_one_success",
                        "nonsense",
                    ),
                )
            )
        ),
    ),
    "map_index_template": (1, texts),
    "max_active_tis_per_dag": (2, integers),
    "max_active_tis_per_dagrun": (2, integers),
    "executor_config": (1, st.one_of(anything, st.just("{'x': [1] * 10_000}"))),
    "do_xcom_push": (1, booleans),
    "multiple_outputs": (1, booleans),
    "inlets": (1, values.assets.map("[{}]".format)),
    "outlets": (2, st.lists(values.assets, min_size=1, max_size=2).map(_listed)),
    "doc_md": (1, texts),
    "doc_json": (1, texts),
    "task_display_name": (1, texts),
    "logger_name": (1, texts),
    "retry_policy": (
        1,
        st.builds(
            "ExceptionRetryPolicy(rules=[RetryRule('builtins.ValueError', RetryAction.RETRY, retry_delay={})])".format,
            spans,
        ),
    ),
}
SENSOR_ARGUMENTS: dict[str, tuple[int, Expressions]] = {
    "poke_interval": (3, st.one_of(spans, numbers)),
    "timeout": (3, st.one_of(spans, numbers)),
    "max_wait": (2, st.one_of(spans, numbers)),
    "exponential_backoff": (2, booleans),
    "soft_fail": (1, booleans),
    "never_fail": (1, booleans),
}


def arguments(table: Mapping[str, tuple[int, Expressions]], most: int, least: int = 0) -> Expressions:
    """Some of a call's keyword arguments, each with a comma before it."""
    names = st.sampled_from([name for name, (weight, _) in table.items() for _ in range(weight)])
    chosen = st.lists(names, min_size=least, max_size=most, unique=True)
    pairs = chosen.flatmap(lambda found: st.tuples(*(table[name][1].map(f"{name}={{}}".format) for name in found)))
    return pairs.map(lambda found: "".join(f", {pair}" for pair in found))


# Most tasks are none of a worker: to run one costs as much as to schedule many.
odd = arguments(TASK_ARGUMENTS, 3)
empty = st.builds(
    "EmptyOperator(task_id={}{})".format, st.one_of(st.just("'a'"), st.sampled_from(values.IDENTIFIERS).map(ascii)), odd
)
unexecuted: Expressions = st.one_of(
    empty,
    empty,
    st.builds("EmptyOperator(task_id='a'{}) >> EmptyOperator(task_id='b'{})".format, odd, odd),
    st.builds("EmptyOperator.partial(task_id='a'{}).expand(doc=[{}, {}])".format, odd, anything, anything),
    st.builds(
        "EmptyOperator.partial(task_id='a').expand_kwargs([{{'doc': {}}}] * {})".format,
        anything,
        st.sampled_from((0, 1, 30)),
    ),
    st.builds(
        "EmptyOperator(task_id='a'{}).as_setup() >> "
        "EmptyOperator(task_id='b').as_teardown(on_failure_fail_dagrun={})".format,
        odd,
        booleans,
    ),
    st.builds(
        "with TaskGroup({}, tooltip={}, ui_color={}, default_args={{'retries': {}}}):\n"
        "        EmptyOperator(task_id='a'{})".format,
        st.one_of(st.just("'g'"), st.sampled_from(values.IDENTIFIERS).map(ascii)),
        texts,
        texts,
        numbers,
        odd,
    ),
    st.builds(
        "group = None\n    for n in range({}):\n        group = TaskGroup(f'g{{n}}', parent_group=group)\n"
        "    EmptyOperator(task_id='a', task_group=group{})".format,
        st.sampled_from((2, 20, 45)),
        odd,
    ),
    st.builds(
        "chain(*(EmptyOperator(task_id=f'a{{n}}'{}) for n in range({})))".format,
        arguments(TASK_ARGUMENTS, 1),
        st.sampled_from((2, 40)),
    ),
)
BODIES: Expressions = st.one_of(
    st.just("raise ValueError('\\udc80\\0')"),
    st.just("raise ValueError"),
    st.just("sys.exit(3)"),
    st.just("raise AirflowSkipException('\\udc80')"),
    moments.map("raise AirflowRescheduleException({})".format),
    anything.map("return {}".format),
    st.builds("get_current_context()['ti'].xcom_push({}, {})".format, texts, anything),
    st.builds("Variable.set({}, {})".format, texts, texts),
    st.builds("return {{{}: {}}}".format, texts, anything),
)
executed: Expressions = st.one_of(
    st.builds("@task(task_id='t'{})\n    def t():\n        {}\n    t()".format, odd, BODIES),
    st.builds(
        "@task(task_id='t', retries=1{})\n    def t():\n        raise ValueError\n    t()".format,
        arguments(
            {
                name: TASK_ARGUMENTS[name]
                for name in ("retry_delay", "max_retry_delay", "retry_exponential_backoff", "retry_policy")
            },
            3,
            1,
        ),
    ),
    st.builds(
        "@task.branch(task_id='t'{})\n    def t():\n        return {}\n    t() >> EmptyOperator(task_id='a')".format,
        odd,
        anything,
    ),
    st.builds(
        "@task\n    def t():\n        return {}\n    EmptyOperator.partial(task_id='m'{}).expand(doc=t())".format,
        st.one_of(anything, st.sampled_from(("[1] * 30", "[]", "{'a': 1}", "[math.nan]"))),
        odd,
    ),
    st.builds(
        "@task.sensor(task_id='t', mode='reschedule'{}{})\n    def t():\n        return {}\n    t()".format,
        arguments(SENSOR_ARGUMENTS, 3, 1),
        arguments(TASK_ARGUMENTS, 1),
        st.sampled_from(("False", "PokeReturnValue(True, {})".format("math.nan"))),
    ),
    st.builds("Defers(task_id='t', timeout={}{})".format, spans, odd),
    st.builds("Defers(task_id='t', trigger=lambda: DateTimeTrigger(moment={}))".format, moments),
    st.builds(
        "TriggerDagRunOperator(task_id='t', trigger_dag_id={}, trigger_run_id={}, conf={{{}: {}}})".format,
        st.sampled_from(("'canary'", "'nowhere'", repr(MARK))),
        texts,
        texts,
        anything,
    ),
    st.builds("TriggerDagRunOperator(task_id='t', trigger_dag_id='MARK-x', logical_date={})".format, moments).map(
        lambda text: text.replace("MARK", MARK)
    ),
    st.builds(
        "@task(outlets=[Asset('asset-case0000')])\n    def t(outlet_events):\n"
        "        outlet_events[Asset('asset-case0000')].extra = {{{}: {}}}\n    t()".format,
        texts,
        anything,
    ),
)
tasks = st.one_of(unexecuted, unexecuted, unexecuted, executed)
SUFFIXES = (*("",) * 12, "x" * 242, "größe", "數" * 50, "." * 60, "-")


LATE: Command = {"kind": "put_variables", "variables": [{"key": MARK, "value": "odd"}]}


def late(dag_id: str, body: str) -> str:
    """What defines a plain DAG until the command LATE is carried out."""
    return (
        f"if Variable.get({MARK!r}, None) is None:\n    dag = DAG({dag_id!a})\nelse:\n{textwrap.indent(body, '    ')}"
    )


@st.composite
def dags(draw: st.DrawFn) -> Case:
    """A DAG file with one odd DAG, and commands about it."""
    dag_id = MARK + draw(st.sampled_from(SUFFIXES))
    first, most = draw(st.sampled_from(((tasks, 3), (tasks, 1), (unexecuted, 3))))
    body = f"with DAG({dag_id!a}{draw(arguments(DAG_ARGUMENTS, most))}) as dag:\n    {draw(first)}\n"
    later = draw(commands(dag_id))
    if not draw(st.integers(0, 3)):
        # The upload is checked while the Variable is not there yet.
        later.insert(0, LATE)
        body = late(dag_id, body)
    return Case({f"{MARK}.py": module(body)}, tuple(later))
