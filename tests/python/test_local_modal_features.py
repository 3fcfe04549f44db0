"""Tests of all rows of the table of SDK features; the code of all rows is one app on one server."""

from __future__ import annotations

import collections
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coverage_table import TABLE
from local_modal import LocalModal, free_ports
from sdk_features import APP_PRELUDE, CLIENT_PRELUDE, REFUSED, REMOVED, Feature, render, rows, wanted_names
from wheels import make_wheel

ROWS = {row.key: row for row in rows()}
THREADS = 6
LIMIT = 500.0
SMALL_APP = """
import modal
app = modal.App("small")

@app.function()
def add(a: int, b: int = 1): return a + b

@app.function()
def talk(): modal.interact()

@app.local_entrypoint()
def main(): print("locally", add.local(1, 2))
"""


def question(row: Feature) -> str:
    """The row's question as a function."""
    ask = textwrap.dedent(row.ask).strip()
    body = ask if "return " in ask else f"return ({ask})"
    return "def ask():\n" + textwrap.indent(body, " ")


def app_files(folder: Path) -> None:
    """The app with the code of all rows, and what its images take from here."""
    codes = dict.fromkeys(row.code for row in rows() if row.code)
    (folder / "features_app.py").write_text(f"{APP_PRELUDE}PORT = {free_ports(3)}\n\n" + "\n\n".join(codes) + "\n")
    (folder / "small_app.py").write_text(SMALL_APP)
    (folder / "features_helper.py").write_text("VALUE = True\n")
    (folder / "files").mkdir()
    (folder / "files/a.txt").touch()
    (folder / "files/b.tmp").touch()
    make_wheel(folder / "wheels", "lm_one", "1.0")
    (folder / "requirements.txt").write_text("lm_one\n")
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'p'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['lm_one']\n"
        f"[tool.uv]\nno-index = true\nfind-links = ['{folder}/wheels']\n[tool.poetry]\nname = 'p'\n"
    )
    (folder / "Dockerfile").write_text("FROM python:{}.{}-slim\nENV A=file\n".format(*sys.version_info))


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, Any]]:
    """What came of each row: its value, or the text of an error."""
    server = LocalModal()
    with pytest.MonkeyPatch.context() as patch:
        # Nothing leaves this machine: there is no such index.
        patch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        patch.setenv("UV_HTTP_RETRIES", "0")
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        server.start()
    folder = server.root / "app"
    folder.mkdir()
    app_files(folder)
    variables = {"PYTHONPATH": str(folder)}
    try:
        deployed = server.modal("deploy", folder / "features_app.py", **variables)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        asked = {row.key: question(row) for row in rows() if row.ask}
        script = (
            CLIENT_PRELUDE
            + f"""
from concurrent.futures import ThreadPoolExecutor
def run(code):
    try:
        names = dict(globals())
        exec(code, names)
        return names["ask"]()
    except BaseException as error: return f"{{type(error).__name__}}: {{error}}"
asked = json.loads({json.dumps(json.dumps(asked))})
with ThreadPoolExecutor({THREADS}) as pool: answers = dict(zip(asked, pool.map(run, asked.values())))
answer(json.loads(json.dumps(answers, default=repr)))
"""
        )
        found: dict[str, Any] = server.sdk(script, limit=LIMIT, **variables)
        for row in rows():
            if row.command:
                arguments = [folder / part if ".py" in part else part for part in row.command]
                done = server.modal(*arguments, **variables)
                found[row.key] = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        yield found
    finally:
        server.close()


@pytest.mark.parametrize("key", ROWS)
def test_feature_matches_its_row(answers: dict[str, Any], key: str) -> None:
    row, found = ROWS[key], answers[key]
    if row.state == REFUSED:
        assert row.seen in str(found) and "Local Modal" in str(found)
        assert "exit code 0" not in str(found)
    elif row.state == REMOVED:
        assert row.seen in str(found)
    elif row.command:
        assert row.seen in str(found) and "exit code 0" in str(found)
    else:
        assert found == row.seen


def test_coverage_table_has_all_rows() -> None:
    assert render() in TABLE.read_text(), "the table has other features; run `make coverage-table`"


def test_every_feature_of_the_sdk_has_a_row() -> None:
    named = collections.Counter(name for row in rows() for name in row.names.split(", "))
    missing = wanted_names() - named.keys()
    # What a class does is in the row of the class, if that is refused as a whole.
    refused = {name for row in rows() if row.state == REFUSED for name in row.names.split(", ")}
    missing = {name for name in missing if name.partition(".")[0] not in refused}
    assert not missing, "features without a row: " + ", ".join(sorted(missing))
    repeated = sorted(name for name, count in named.items() if count > 1)
    assert not repeated, "features with more than one row: " + ", ".join(repeated)
