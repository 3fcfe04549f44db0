"""Fixtures for tests against Local Modal, the order of the tests, and what they cost."""

from __future__ import annotations

import collections
import resource
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from local_modal import APPS, LocalModal

# The longest files, so that no processor is left with one of them at the end. The rest follows by name.
FIRST = (
    "api_schema",
    "ui",
    "functions_due",
    "generated",
    "functions_deferred",
    "functions_backfills",
    "functions_tick",
    "local_modal_images",
    "functions_tasks",
    "functions_commands",
    "functions_durable",
    "terminal",
    "local_modal_load",
)
COST = "processor_seconds"
SHOWN_FILES = 25
_used = 0.0

# A shell has its jobs in the background ignore Ctrl-C, and all their children with them; several tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(FIRST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Notes what a test has cost: processor time of this process, and of those of its children that have ended."""
    global _used  # noqa: PLW0603
    report = yield
    if call.when == "teardown":
        spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        total = sum(used.ru_utime + used.ru_stime for used in spent)
        report.user_properties = [(COST, total - _used)]
        _used = total
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    costs: collections.Counter[str] = collections.Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if cost := dict(getattr(report, "user_properties", ())).get(COST):
            costs[report.nodeid.partition("::")[0]] += cost
    terminalreporter.section("processor seconds by file")
    for name, cost in costs.most_common(SHOWN_FILES):
        terminalreporter.write_line(f"{cost:8.1f}  {name}")


@pytest.fixture
def local_modal() -> Iterator[LocalModal]:
    """A server of the test's own, which it may stop and start."""
    server = LocalModal()
    server.start()
    yield server
    server.close()


def with_sample_app(*arguments: str) -> Iterator[LocalModal]:
    server = LocalModal()
    server.start(*arguments)
    deployed = server.deploy(APPS / "sample_app.py")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    yield server
    server.close()


@pytest.fixture(scope="module", params=["bind", "strict"])
def shared_modal(request: pytest.FixtureRequest) -> Iterator[LocalModal]:
    """A server with the sample app, shared by a module's tests; once for each way in which containers see Volumes."""
    yield from with_sample_app("--volumes", request.param)


@pytest.fixture(scope="module")
def sample_modal() -> Iterator[LocalModal]:
    """A server with the sample app, shared by a module's tests, for what has nothing to do with Volumes."""
    yield from with_sample_app()
