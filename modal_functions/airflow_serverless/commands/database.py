"""The command that restores the metadata database from a backup; `run._load` does so, even if it is damaged."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_serverless.commands.command import CommandError, Request, Result
from airflow_serverless.state import Command

ROLL_BACK = "roll_back"


def wanted(commands: Mapping[str, Command]) -> list[Command]:
    """The commands to roll back, oldest first."""
    found = [command for command in commands.values() if command["kind"] == ROLL_BACK]
    return sorted(found, key=lambda command: command["at"])


def roll_back(request: Request) -> Result:
    """`backup`: the name of a file; `is_loaded`: whether this tick works on it. Runs since the backup are gone."""
    if not request.get("is_loaded"):
        raise CommandError(f"there is no backup {request['backup']!r}", "not_found")
    return {"backup": request["backup"]}
