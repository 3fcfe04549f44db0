"""Stands in for `systemctl --user` where there is no systemd: starts and stops what the units say.

The folder of the units and that of its own notes come from the environment, like those of the real one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

NOTES = Path(os.environ["FAKE_SYSTEMD"])
UNITS = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
LIMIT_SECONDS = 60.0


def values(unit: str, key: str) -> list[str]:
    lines = (UNITS / unit).read_text().splitlines()
    return [line.partition("=")[2].replace("%%", "%") for line in lines if line.startswith(f"{key}=")]


def start(unit: str) -> None:
    if not unit.endswith(".service") or (NOTES / unit).exists():
        return
    variables = [word for line in values(unit, "Environment") for word in shlex.split(line)]
    (command,) = values(unit, "ExecStart")
    environment = dict(word.split("=", 1) for word in variables)
    with (NOTES / "output").open("a") as output:
        process = subprocess.Popen(shlex.split(command), env=environment, stdout=output, stderr=output)
    (NOTES / unit).write_text(str(process.pid))


def stop(unit: str) -> None:
    note = NOTES / unit
    if not note.exists():
        return
    pid = int(note.read_text())
    note.unlink()
    until = time.monotonic() + LIMIT_SECONDS
    os.kill(pid, signal.SIGTERM)
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise SystemExit(f"{unit} does not stop")


def main() -> None:
    user, verb, *arguments = sys.argv[1:]
    assert user == "--user", sys.argv
    with (NOTES / "said").open("a") as said:
        said.write(" ".join([verb, *arguments]) + "\n")
    units = [argument for argument in arguments if argument != "--now"]
    for unit in units:
        assert (UNITS / unit).exists(), f"there is no {unit}"
        if verb == "start" or (verb == "enable" and "--now" in arguments):
            start(unit)
        elif verb == "stop" or (verb == "disable" and "--now" in arguments):
            stop(unit)


main()
