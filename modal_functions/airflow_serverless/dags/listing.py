"""Lists DAG files as Airflow does, but what is wrong with one `.airflowignore` concerns only that file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_serverless import regular

if TYPE_CHECKING:
    from airflow._shared.module_loading.file_discovery import _IgnoreRule

IGNORE_FILE = ".airflowignore"


class NotAPattern(ValueError):
    """A line of an `.airflowignore` that is not a pattern."""


@dataclass
class Listing:
    """The DAG files of a folder; paths are relative to it.

    `files`: Python files and archives that no `.airflowignore` excludes. `faults`: {`.airflowignore`: its first line
    that is not a pattern, or why it cannot be read}; other lines apply.
    """

    files: set[str] = field(default_factory=set)
    faults: dict[str, Exception] = field(default_factory=dict)


def list_dag_files(root: Path) -> Listing:
    """The DAG files below a folder."""
    from airflow._shared.module_loading.file_discovery import _GlobIgnoreRule

    listing = Listing()
    rules_above: dict[Path, list[_IgnoreRule]] = {}
    for folder, names, files in walk(root):
        rules = rules_above.pop(folder, [])
        if IGNORE_FILE in files:
            rules = [*rules, *_rules(folder / IGNORE_FILE, root, listing)]
        names[:] = [name for name in names if not _GlobIgnoreRule.match(folder / name, rules)]
        rules_above |= {folder / name: rules for name in names}
        for path in (folder / name for name in files if name != IGNORE_FILE):
            if not _GlobIgnoreRule.match(path, rules) and _is_dag_file(path):
                listing.files.add(path.relative_to(root).as_posix())
    return listing


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of folders in it, names of files in it) from the root down, like `os.walk`.

    Links to folders are followed, as Airflow does, but for those that lead to a folder that they are in.
    """
    for directory, names, files in os.walk(root, followlinks=True):
        folder = Path(directory)
        names[:] = [name for name in names if not _leads_up(folder / name)]
        yield folder, names, files


def _rules(file: Path, root: Path, listing: Listing) -> Iterator[_IgnoreRule]:
    from airflow._shared.module_loading.file_discovery import _GlobIgnoreRule

    name = file.relative_to(root).as_posix()
    try:
        # Names of files need not be UTF-8.
        lines = regular.read_text(file, errors="surrogateescape").split("\n")
    except OSError as error:
        listing.faults[name] = error
        return
    for number, line in enumerate(lines, 1):
        pattern = line.partition("#")[0].rstrip() if "#" in line else line
        try:
            rule = _GlobIgnoreRule.compile(pattern, root, file) if pattern else None
        except Exception as error:
            fault = NotAPattern(f"{name}, line {number} is not a pattern: {pattern!r}")
            fault.__cause__ = error
            listing.faults.setdefault(name, fault)
            continue
        if rule is not None:
            yield rule


def _leads_up(folder: Path) -> bool:
    """Whether a folder is a link to one that it is in, in which it would be found again and again."""
    return folder.is_symlink() and any(map(folder.samefile, folder.parents))


def _is_dag_file(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() == ".py" or zipfile.is_zipfile(path))
