"""Writes the generated parts of the reference from what the code says, or checks that they are current.

The sources are `openapi/airflowd.json` and `modal/emulator/COVERAGE.md`, which tests compare with the code. Each part
stands between the lines `<!-- generated: NAME -->` and `<!-- end -->` of its page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "docs/src"
OPENAPI = REPOSITORY / "openapi/airflowd.json"
COVERAGE = REPOSITORY / "modal/emulator/COVERAGE.md"
METHODS = ("get", "post", "put", "patch", "delete")
PART = r"(<!-- generated: {name} -->\n).*?(<!-- end -->)"


def routes() -> str:
    """All routes by their tags."""
    document = _document()
    parts = []
    for tag in document["tags"]:
        rows = [
            f"| `{method.upper()} {path}` | {_cell(operation['summary'])} |"
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if method in METHODS and tag["name"] in operation["tags"]
        ]
        parts.append(
            f"### {tag['name']}\n\n{tag['description']}.\n\n| route | what it does |\n|---|---|\n" + "\n".join(rows)
        )
    return "\n\n".join(parts)


def problems() -> str:
    """All kinds of problems, as the answers of the API name them, by status."""
    found = {}
    for answer in _document()["components"]["responses"].values():
        for content in answer["content"].values():
            for name, example in content.get("examples", {}).items():
                found[name] = example["value"]
    rows = [
        f"| `{name}` | {problem['status']} | {_cell(problem['title'])} |"
        for name, problem in sorted(found.items(), key=lambda item: (item[1]["status"], item[0]))
    ]
    return "| type | status | title |\n|---|---|---|\n" + "\n".join(rows)


def features() -> str:
    """The features of Modal's SDK, without the RPCs that follow them."""
    text = COVERAGE.read_text()
    tables = re.search(r"^## Features of the SDK\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert tables, COVERAGE
    return tables[1][tables[1].index("### ") :].strip()


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "routes": ("reference/rest-api.md", routes),
    "problems": ("reference/problems.md", problems),
    "features": ("explanation/modal.md", features),
}
"""{name: (page, what makes it)}."""


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(OPENAPI.read_text())
    return document


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def render(name: str) -> tuple[Path, str]:
    """The page of a part, and its text with the part as it has to be."""
    page, make = PARTS[name]
    path = PAGES / page
    part = make()
    text, count = re.subn(
        PART.format(name=name), lambda found: f"{found[1]}\n{part}\n\n{found[2]}", path.read_text(), flags=re.DOTALL
    )
    assert count == 1, f"{page} has no part {name!r}"
    return path, text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a part is stale")
    is_check = parser.parse_args().check
    stale = False
    for name in PARTS:
        path, text = render(name)
        if path.read_text() == text:
            continue
        stale = True
        if is_check:
            print(f"{path.relative_to(REPOSITORY)}: {name} is stale: `make docs-reference` writes it")
        else:
            path.write_text(text)
    return int(stale and is_check)


if __name__ == "__main__":
    sys.exit(main())
