"""Draws cases of all kinds."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from generated.cases import Case
from generated.dag_files import dags
from generated.plugin_files import extensions, ignores, timetables

cases: st.SearchStrategy[Case] = st.integers(0, 29).flatmap(
    lambda kind: {0: timetables, 1: extensions(), 2: ignores()}.get(kind, dags())
)


def generate(count: int, number: int) -> list[Case]:
    """So many cases, always the same for one `number`."""
    return [_draw(number + step) for step in range(count)]


def _draw(number: int) -> Case:
    """The case of a seed. Hypothesis begins with the simplest one, and varies those that it has drawn after a few."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=2, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(cases)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found[-1]
