"""Fixtures for tests against Local Modal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_modal import APPS, LocalModal


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
