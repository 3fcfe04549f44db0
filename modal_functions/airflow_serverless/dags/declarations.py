"""What a DAG file asks for: the text of requirements files, as uv reads them.

A declaration is a tuple with an entry for each file: a line with its path in the DAG folder, and its content. The first
is the one that counts, the others are included by it. It travels as JSON.
"""

from __future__ import annotations

import os
import platform
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from airflow_serverless import regular

Declaration = tuple[str, ...]

FILE = "requirements.txt"
SCRIPT = "script.txt"
"""In place of a path, for what a block in a DAG file declares."""
BLOCK = re.compile(r"^# /// script$\n(?P<content>(?:^#(?:| .*)$\n)*?)^# ///$", re.MULTILINE)
BEGINNING = re.compile(r"^# /// script$", re.MULTILINE)
INCLUDE = re.compile(
    r"^[ \t]*(?:-r|-c|--requirements?|--constraints?)[ \t]*=?[ \t]*(?P<path>[^\s=].*?)(?:[ \t]+#.*)?[ \t]*$",
    re.MULTILINE,
)
REMOTE = re.compile(r"^[a-z]+://", re.IGNORECASE)


class RequirementsError(Exception):
    """What a file asks for cannot be had; the message says why, in the resolver's words where it has any."""


def declared(path: Path, root: Path) -> Declaration:
    """What the DAG file `path` asks for; empty if nothing. Raises RequirementsError for what is not valid."""
    if path.suffix == ".py" and (block := _block(path)) is not None:
        return (_entry(SCRIPT, "".join(f"{one}\n" for one in block)),) if block else ()
    beside = path.parent / FILE
    if not (beside.is_file() and beside.is_relative_to(root)):
        return ()
    found: dict[str, str] = {}
    _collect(beside, root, found)
    asks = any(
        line.strip() and not line.lstrip().startswith("#") for text in found.values() for line in text.split("\n")
    )
    return tuple(_entry(name, text) for name, text in found.items()) if asks else ()


def write(declaration: Declaration, folder: Path) -> Path:
    """Write the files of a declaration below a folder; returns the one that counts."""
    paths = []
    for entry in declaration:
        name, _, text = entry.partition("\n")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths[0]


def has_hashes(declaration: Declaration) -> bool:
    """Whether packages are to be checked by their hashes, as pip decides it."""
    return any("--hash" in entry or "--require-hashes" in entry for entry in declaration)


def _entry(name: str, text: str) -> str:
    return f"{name}\n{text}"


def _collect(path: Path, root: Path, found: dict[str, str]) -> None:
    """Add a requirements file and what it includes, by their paths in the DAG folder."""
    name = path.relative_to(root).as_posix()
    try:
        text = regular.read_text(path, "utf-8-sig")
    except UnicodeDecodeError:
        raise RequirementsError(f"{name} is not text in UTF-8") from None
    except OSError as error:
        raise RequirementsError(f"{name} cannot be read: {error.strerror or error}") from None
    found[name] = text
    for included in _included(text):
        target = Path(os.path.normpath(path.parent / included))
        if not target.is_relative_to(root):
            raise RequirementsError(f"{name} includes {included}, which is not in the DAG folder")
        if target.relative_to(root).as_posix() not in found:
            _collect(target, root, found)


def _included(text: str) -> Iterator[str]:
    """Paths of the files that a requirements file includes. What has an address is for uv."""
    # A line can be continued.
    for match in INCLUDE.finditer(text.replace("\\\n", " ")):
        included = match["path"].strip("\"'")
        if not REMOTE.match(included):
            yield included


def _block(path: Path) -> list[str] | None:
    text = regular.read_text(path, errors="replace")
    blocks = list(BLOCK.finditer(text))
    beginnings = list(BEGINNING.finditer(text))
    inside = {beginning.start() for beginning in beginnings} - {block.start() for block in blocks}
    if not beginnings:
        return None
    if not blocks or (inside and min(inside) < blocks[0].start()):
        line = _line(text, min(inside))
        raise RequirementsError(
            f"the `# /// script` block at line {line} of {path.name} has no end: a line `# ///`, "
            "with nothing but comments before it"
        )
    line = _line(text, blocks[0].start())
    if len(blocks) > 1:
        raise RequirementsError(f"{path.name} has more than one `# /// script` block; one of them is at line {line}")
    content = "".join(found[2:] if found.startswith("# ") else found[1:] for found in _lines(blocks[0]["content"]))
    try:
        metadata = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise RequirementsError(
            f"the `# /// script` block at line {line} of {path.name} is not valid: {error}"
        ) from None
    _check_python(metadata.get("requires-python"), path.name)
    dependencies = metadata.get("dependencies", [])
    if not (isinstance(dependencies, list) and all(isinstance(one, str) for one in dependencies)):
        raise RequirementsError(f"`dependencies` in the `# /// script` block of {path.name} is not a list of strings")
    return dependencies


def _check_python(wanted: object, name: str) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if wanted is None:
        return
    where = f"`requires-python` in the `# /// script` block of {name}"
    try:
        specifiers = SpecifierSet(wanted) if isinstance(wanted, str) else None
    except InvalidSpecifier:
        specifiers = None
    if specifiers is None:
        raise RequirementsError(f"{where} is not a version specifier: {wanted!r}")
    python = platform.python_version()
    if not specifiers.contains(python, prereleases=True):
        raise RequirementsError(f"{where} is {wanted!r}, and DAGs are run by Python {python}")


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
