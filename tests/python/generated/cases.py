"""Cases: files for the DAG folder, and commands about the DAGs in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from generated.values import MARK

Command = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`files`: {path in the DAG folder: content}, plugins first. `commands`: what follows, without their ids.

    `MARK` stands for the name of the case in all of it.
    """

    files: Mapping[str, str]
    commands: tuple[Command, ...] = ()

    def named(self, name: str) -> Case:
        return Case(_replace(self.files, name), _replace(self.commands, name))


def named(cases: Iterable[Case], first: int = 0) -> list[Case]:
    """The cases with names of their own, numbered from `first`."""
    return [case.named(f"case{number:04}") for number, case in enumerate(cases, first)]


def _replace(thing: Any, name: str) -> Any:
    if isinstance(thing, str):
        return thing.replace(MARK, name)
    if isinstance(thing, Mapping):
        return {_replace(key, name): _replace(value, name) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(_replace(item, name) for item in thing)
    return thing
