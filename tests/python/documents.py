"""The README and the pages of docs/, and the blocks of commands and files in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from local_modal import REPOSITORY

BOOK = REPOSITORY / "docs/src"
LANGUAGES = {"sh", "python", "yaml", "json", "text", "mermaid"}
FENCE = re.compile(r"(```+)(\w*)$")
DIRECTIVE = re.compile(r"<!-- test: (?:(prepared)|background until \"(.*)\") -->")
NOT_RUN = re.compile(r"\*Not run by the tests: (.*)\.\*")
FILE = re.compile(r"# file: (\S+)\n")
INCLUDE = "{{#include "


class Block(NamedTuple):
    """A fenced block. `until`: it runs in the background, and has begun when it prints this."""

    page: str
    line: int
    language: str
    text: str
    is_prepared: bool = False
    until: str | None = None
    not_run: str | None = None

    @property
    def file(self) -> str | None:
        """The file that the reader is to write, if the block is one: its first line names it."""
        found = FILE.match(self.text)
        return found[1] if found and self.language in ("python", "yaml") else None

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.is_prepared and self.not_run is None


def pages() -> list[Path]:
    """The README and all pages of the book, in its order."""
    links = re.findall(r"\]\((\S+\.md)\)", (BOOK / "SUMMARY.md").read_text())
    return [REPOSITORY / "README.md", *(BOOK / link for link in links)]


def name(page: Path) -> str:
    return str(page.relative_to(BOOK if page.is_relative_to(BOOK) else REPOSITORY))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. What is said of one stands in the line of text before it."""
    before, opened, lines, start = "", None, list[str](), 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if opened and line == opened[1]:
            directive, not_run = DIRECTIVE.fullmatch(before), NOT_RUN.fullmatch(before)
            yield Block(
                name(page),
                start,
                opened[2],
                "".join(f"{line}\n" for line in lines),
                bool(directive and directive[1]),
                directive[2] if directive else None,
                not_run[1] if not_run else None,
            )
            before, opened, lines = "", None, []
        elif opened:
            lines.append(line)
        elif fence:
            opened, start = fence, number
        elif line.strip():
            before = line.strip()
    assert not opened, f"{name(page)}:{start} has no end"
