"""Commands about a DAG, and about values, in the form of the scheduler's commands."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from generated import values
from generated.cases import Command
from generated.values import MARK

json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from((None, True, 0, -0.0, 1e300, 2**70, float("nan"), float("inf"), *values.TEXTS)),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
words = st.one_of(st.sampled_from(values.TEXTS), st.text(st.characters(codec=None), max_size=8))
dates = st.sampled_from(
    ("0001-01-01", "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59-23:59", "2026-03-29T02:30:00+01:00", "2026-01-01",
     "2011-12-30T00:00:00-10:00", "0001-01-01T00:00:00+23:59", "2026-02-30", "", "now", "2026-01-01T00:00:00.000001Z")
)  # fmt: skip


@st.composite
def commands(draw: st.DrawFn, dag_id: str) -> list[Command]:
    """A run, mostly, and what else people do with a DAG, and with values."""
    found: list[Command] = []
    if draw(st.booleans()):
        found.append({"kind": "unpause", "dag_id": dag_id})
    if draw(st.integers(0, 3)):
        run: Command = {"kind": "trigger", "dag_id": dag_id}
        for field, strategy in (
            ("run_id", words),
            ("conf", json_values),
            ("logical_date", dates),
            ("partition_key", words),
        ):
            if not draw(st.integers(0, 3)):
                run[field] = draw(strategy)
        found += [{"kind": "unpause", "dag_id": dag_id}, run]
    other = draw(st.integers(0, 11))
    if other == 0:
        entry = {"key": draw(st.one_of(st.just(MARK), words)), "value": draw(json_values), "description": draw(words)}
        found.append({"kind": "put_variables", "variables": [entry]})
    elif other == 1:
        slots = draw(st.sampled_from((0, 1, -1, True, 2**31 - 1, 2**31, 2**70, 1.5, None)))
        pool = {
            "name": draw(
                st.one_of(st.just(MARK), st.just(MARK + "x" * 248), words.filter(lambda name: name != "default_pool"))
            )
        }
        found.append(
            {
                "kind": "put_pools",
                "pools": [{**pool, "slots": slots, "description": draw(words), "include_deferred": True}],
            }
        )
    elif other == 2:
        connection = {
            "connection_id": MARK,
            "conn_type": draw(words),
            draw(st.sampled_from(("host", "extra", "port", "password"))): draw(json_values),
        }
        found.append(
            {
                "kind": "put_connections",
                "connections": [draw(st.sampled_from((connection, {"connection_id": MARK, "uri": draw(words)})))],
            }
        )
    elif other == 3:
        found.append(
            {
                "kind": "create_backfill",
                "dag_id": dag_id,
                "from_date": draw(dates),
                "to_date": draw(dates),
                "dag_run_conf": draw(json_values),
            }
        )
    elif other == 4:
        found.append(
            {
                "kind": draw(st.sampled_from(("mark_run", "clear_run"))),
                "dag_id": dag_id,
                "run_id": draw(words),
                "state": draw(words),
            }
        )
    return found
