"""Patches of private parts are applied to the versions that they were checked with, and to no others."""

from __future__ import annotations

import re

import pytest

from airflow_serverless import patched
from environment import FUNCTIONS


def test_checked_versions_are_the_locked_ones() -> None:
    lock = dict(re.findall(r"^(\S+)==(\S+)", (FUNCTIONS / "requirements.lock").read_text(), re.MULTILINE))
    assert {name: lock[name] for name in patched.CHECKED} == patched.CHECKED
    patched.check_versions()


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(patched.CHECKED, "fastapi", "0.1")
    with pytest.raises(RuntimeError, match=r"fastapi \S+ instead of 0\.1"):
        patched.check_versions()
