"""Checks the links of the documentation: those of Markdown files and, given the folder of the built book, of its pages.

Addresses on the internet are checked by their form only. Prints what is wrong and exits with 1, or with 0.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = Path(__file__).resolve().parents[1]
BOOK = REPOSITORY / "docs/src"
SUMMARY = BOOK / "SUMMARY.md"
OTHERS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "STYLE.md", "modal/emulator/COVERAGE.md")
FENCE = re.compile(r"^(```+)[^\n]*\n.*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]*)\)|<(https?://[^>\s]*)>")
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
INCLUDE = re.compile(r"\{\{#include ([^}\s]*)\}\}")
EXTERNAL = re.compile(r"https?://[a-z0-9.-]+(:\d+)?(/\S*)?")


def check_markdown() -> Iterator[str]:
    """What is wrong with the Markdown files, one sentence each."""
    listed = {SUMMARY.parent / target for target in _targets(SUMMARY)}
    pages = {path for path in BOOK.rglob("*.md") if path != SUMMARY}
    for path in sorted(pages - listed):
        yield f"{_name(path)} is not in SUMMARY.md"
    for path in sorted({SUMMARY, *pages} | {REPOSITORY / name for name in OTHERS}):
        for target in _targets(path):
            if fault := _fault(path, target):
                yield f"{_name(path)}: link to {target}: {fault}"
        for target in INCLUDE.findall(path.read_text()):
            if not (path.parent / target).is_file():
                yield f"{_name(path)}: {target} is not there to be included"


def _fault(path: Path, target: str) -> str | None:
    if "://" in target:
        return None if EXTERNAL.fullmatch(target) else "not the form of an address"
    address, _, anchor = target.partition("#")
    file = (path.parent / unquote(address)).resolve() if address else path
    if not file.exists():
        return "there is no such file"
    if path.is_relative_to(BOOK) and not file.is_relative_to(BOOK):
        return "leads out of the book"
    if anchor and (file.suffix != ".md" or anchor not in _anchors(file)):
        return "there is no such heading"
    return None


def _targets(path: Path) -> list[str]:
    text = CODE.sub("``", FENCE.sub("", path.read_text()))
    return [local or external for local, external in LINK.findall(text)]


@cache
def _anchors(path: Path) -> frozenset[str]:
    """The ids of headings, as mdBook and code hosts make them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text()))
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return frozenset(re.sub(r"[^\w -]", "", text.lower()).strip().replace(" ", "-") for text in texts)


class _Page(HTMLParser):
    """The ids and the links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in ("href", "src") and value and not (tag == "a" and value == "#"):
                self.links.append(value)


def check_book(book: Path) -> Iterator[str]:
    """What is wrong with the built pages."""
    pages = {path.resolve(): _Page(path) for path in book.rglob("*.html")}
    if not pages:
        yield f"{book} has no pages"
    for path, page in sorted(pages.items()):
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not file.exists():
                yield f"{path.relative_to(book.resolve())}: {link} leads nowhere"
            elif anchor and file in pages and anchor not in pages[file].ids:
                yield f"{path.relative_to(book.resolve())}: {link} names no place of that page"


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def main(arguments: list[str]) -> int:
    faults = [*check_markdown(), *(fault for folder in arguments for fault in check_book(Path(folder)))]
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
