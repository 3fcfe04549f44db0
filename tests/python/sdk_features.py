"""The features of the Modal SDK and how Local Modal supports them: one row each, with a test.

`test_local_modal_features.py` deploys the code of all rows as one app, runs the question of each row, and compares the
answer. `coverage_table.py` writes the rows into modal/emulator/COVERAGE.md.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import click
import modal
from modal.cli.entry_point import entrypoint_cli

WORKS, REFUSED, IGNORED, REMOVED = "works", "refused", "ignored", "removed"

# At the top of the app that has the code of all rows.
APP_PRELUDE = """
import os, pathlib, subprocess, sys, threading, time
import modal
import modal.experimental
app = modal.App("features", tags={"kind": "test"})
notes = modal.Dict.from_name("features-notes", create_if_missing=True)
base = modal.Image.debian_slim()
"""

# What the questions of rows find.
CLIENT_PRELUDE = """
import datetime, importlib, pathlib, time, urllib.error, urllib.request
import modal.experimental

def f(name): return modal.Function.from_name("features", name)
def c(name): return modal.Cls.from_name("features", name)
def s(name): return modal.Server.from_name("features", name)
def note(key): return modal.Dict.from_name("features-notes", create_if_missing=True).get(key)

def until(look, limit=120):
    end = time.monotonic() + limit
    while not (found := look()) and time.monotonic() < end: time.sleep(0.1)
    return found

def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error: return error.code, error.read().decode()

def served(url):
    "Its answer, once a container listens and has room."
    return until(lambda: (answer := get(url))[0] not in (429, 503) and answer)

def without(): pass

def here(name): return pathlib.Path(importlib.import_module("features_helper").__file__).with_name(name)

def fails_with(call, text):
    try: call()
    except Exception as error: return text in str(error) or str(error)

def deploy(code):
    "Deploys an app of its own."
    app = modal.App("feature-" + str(abs(hash(code))))
    exec(code, {"modal": modal, "app": app, "__name__": "__main__"})
    return app.deploy()
"""


@dataclasses.dataclass(frozen=True)
class Feature:
    """A row of the table.

    `names` are those of the SDK: `parameter=` of `App.function`, `App.cls` and `App.server`, `Class.method`, what the
    module `modal` has, or `modal` with a command. Its test is `ask`, an expression or lines with a `return` whose value
    must be `seen`; or a command of `modal` whose output must have `seen`. The error of a refused or removed feature
    must have `seen`.
    """

    group: str
    names: str
    state: str
    ask: str = ""
    seen: Any = None
    code: str = ""
    note: str = ""
    command: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its first name, by which it is known to tests."""
        return self.names.split(", ")[0]


def works(group: str, names: str, ask: str = "", seen: Any = True, code: str = "", **more: Any) -> Feature:
    return Feature(group, names, WORKS, ask, seen, code, **more)


def ignored(group: str, names: str, note: str, ask: str, seen: Any = True, code: str = "") -> Feature:
    return Feature(group, names, IGNORED, ask, seen, code, note)


def refused(group: str, names: str, seen: str, ask: str = "", note: str = "", **more: Any) -> Feature:
    return Feature(group, names, REFUSED, ask, seen, note=note, **more)


def removed(group: str, names: str, seen: str, ask: str, note: str) -> Feature:
    """A feature that the SDK itself refuses, whatever the server is."""
    return Feature(group, names, REMOVED, ask, seen, note=note)


def refused_code(group: str, names: str, seen: str, code: str, note: str = "") -> Feature:
    """A feature with which an app is not deployed."""
    return refused(group, names, seen, f"deploy({code!r})", note)


def rows() -> list[Feature]:
    """All rows, in their order."""
    # They are made with what is above.
    import sdk_features_code
    import sdk_features_images
    import sdk_features_objects

    return [*sdk_features_code.ROWS, *sdk_features_images.ROWS, *sdk_features_objects.ROWS]


def wanted_names() -> set[str]:
    """What of the SDK has to be in a row."""
    names = {
        f"{parameter}="
        for decorator in (modal.App.function, modal.App.cls, modal.App.server)
        for parameter in inspect.signature(decorator).parameters
        if parameter != "self" and not parameter.startswith("_")
    }
    for name in modal.__all__:
        if inspect.isclass(kind := getattr(modal, name)) and hasattr(kind, "hydrate"):
            names |= {f"{name}.{method}" for method in dir(kind) if not method.startswith("_")}
    names |= {f"App.{method}" for method in dir(modal.App) if not method.startswith("_")}
    commands = entrypoint_cli.list_commands(click.Context(entrypoint_cli))
    names |= {
        f"modal {name}"
        for name in commands
        if not entrypoint_cli.get_command(click.Context(entrypoint_cli), name).hidden
    }
    return names | (set(modal.__all__) - {"__version__"})


def render() -> str:
    """The rows as tables."""
    text = ""
    groups = dict.fromkeys(row.group for row in rows())
    for group in groups:
        text += f"### {group}\n\n| feature | state | note |\n|---|---|---|\n"
        for row in rows():
            if row.group == group:
                names = ", ".join(f"`{name}`" for name in row.names.split(", "))
                text += f"| {names} | {row.state} | {row.note} |\n"
        text += "\n"
    return text
