"""The documentation fits the code: its reference, its tables, its examples of files, its links."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import corpus
import documents
from airflow_serverless import state
from local_modal import REPOSITORY, binary

REFERENCE = documents.BOOK / "reference"
LONGEST_README = 150


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "docs" / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def first_cells(page: Path, section: str = "") -> set[str]:
    """All code in the first cells of the rows of a page's tables, or of those of a section."""
    text = page.read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]*)`", row)}


def row(page: Path, code: str) -> list[str]:
    """The cells of the row that begins with this."""
    lines = [line for line in page.read_text().splitlines() if line.startswith(f"| `{code}` |")]
    assert len(lines) == 1, f"{page}: {code}"
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_generated_parts_are_current() -> None:
    done = script("reference.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_resolve() -> None:
    done = script("check_links.py")
    assert done.returncode == 0, done.stderr


def test_broken_links_of_built_pages_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#here">good</a><a href="b.html#there">bad</a><img src="c.png">')
    (tmp_path / "b.html").write_text('<h1 id="here">Here</h1>')
    done = script("check_links.py", tmp_path)
    faults = ["a.html: b.html#there names no place of that page", "a.html: c.png leads nowhere"]
    assert (done.returncode, done.stderr.splitlines()) == (1, faults)


@pytest.mark.parametrize("page", documents.pages(), ids=documents.name)
def test_code_blocks_parse_in_their_language(page: Path) -> None:
    for block in documents.blocks(page):
        assert block.language in documents.LANGUAGES, block
        if documents.INCLUDE in block.text:
            continue
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            json.loads(block.text)


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= LONGEST_README


def test_keys_of_config_yaml_are_documented() -> None:
    schemas = json.loads((REPOSITORY / "openapi/airflowd.json").read_text())["components"]["schemas"]
    page = REFERENCE / "config.md"

    def keys(schema: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        """{key: its schema}, with those that have keys of their own in their place."""
        found = {}
        for name, value in schema["properties"].items():
            target = schemas[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            below = keys(target, f"{prefix}{name}.") if "properties" in target else {f"{prefix}{name}": target}
            found.update(below)
        return found

    known = keys(schemas["Config"])
    free = {"airflow.SECTION.OPTION", "env.NAME"}
    assert first_cells(page, "Keys") == (known.keys() - {"env"}) | free
    for key, schema in known.items():
        if isinstance(schema.get("default"), int):
            assert row(page, key)[2].strip("`") == str(schema["default"]).lower(), key
        if "maximum" in schema:
            assert row(page, key)[1] == f"{schema['minimum']} to {schema['maximum']}", key


def test_settings_of_the_daemon_are_documented() -> None:
    source = (REPOSITORY / "daemon/src/settings.rs").read_text()
    structs = {
        name: re.findall(r"^    pub (\w+): (\S+),", body, re.MULTILINE)
        for name, body in re.findall(r"^pub struct (\w+) \{\n(.*?)^\}", source, re.MULTILINE | re.DOTALL)
    }
    known = {
        f"{name}.{inner}" if kind in structs else name
        for name, kind in structs["Settings"]
        for inner, _ in structs.get(kind, [("", "")])
    }
    documented = first_cells(REFERENCE / "airflowd.md")
    assert {key for key in documented if re.fullmatch(r"[a-z_]+\.[a-z_]+|listen", key)} - {"airflowd.yaml"} == known


@pytest.mark.parametrize(
    ("program", "arguments", "page"),
    [
        (REPOSITORY / "target/debug/airflowd", [], "reference/airflowd.md"),
        (binary(), ["serve"], "how-to/local-modal.md"),
    ],
)
def test_options_of_programs_are_documented(program: Path, arguments: list[str], page: str) -> None:
    text = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)) - {"--help", "--version"}
    cells = first_cells(documents.BOOK / page)
    assert options == {cell.split()[0] for cell in cells if cell.startswith("--")} - {"--help", "--version"}


@pytest.mark.parametrize("program", ["airflow-serverless", "airflowd"])
def test_exit_codes_are_documented(program: str) -> None:
    command = [REPOSITORY / "target/debug" / program, "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = " ".join(text.partition("Exit codes:")[2].split()).split("SIGHUP")[0]
    section = (REFERENCE / "exit-codes.md").read_text().partition(f"\n## {program}\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    assert [found.split()[0] for found in said.split(" · ")] == documented


def test_environment_variables_are_documented() -> None:
    names = set(re.findall(r'"(AIRFLOW_SERVERLESS_\w+)"', (REPOSITORY / "api/src/variables.rs").read_text()))
    documented = first_cells(REFERENCE / "environment-variables.md")
    assert names == {name for name in documented if name.startswith("AIRFLOW_SERVERLESS_")}


def test_keys_of_the_dict_are_documented() -> None:
    source = Path(state.__file__).read_text()
    # Single keys, and the beginnings of those that carry ids.
    single = {state.WAKE, state.DUE, state.HEALTH, state.PUBLISHED, state.WRITTEN, state.TRIGGERS, state.TRIGGERER}
    prefixes = set(re.findall(r'f"([a-z]+):\{', source)) | {
        state.JOURNAL_PREFIX.rstrip(":"),
        "lock",
        "command",
        "reply",
    }
    documented = {key.partition(":")[0] for key in first_cells(REFERENCE / "state.md", "Dict")}
    assert documented == single | prefixes


def test_feature_table_covers_the_corpus() -> None:
    table = (documents.BOOK / "explanation/airflow.md").read_text()
    files = [path.name for path in (corpus.CORPUS / "dags").iterdir() if path.name != "__pycache__"]
    assert [name for name in [*files, "archive"] if f"`{name}`" not in table] == []
    dags = json.loads(corpus.EXPECTED.read_text())["dags"]
    assert f"A corpus of {len(dags)} DAGs" in table.replace("\n", " ")
