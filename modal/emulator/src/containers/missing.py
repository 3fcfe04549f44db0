"""Names skipped steps of an image in the errors that they may have caused.

Loaded by the runner for containers whose image has skipped steps: what such a step would have installed is missing, and
the error says only that a program, a library or a module is not there. Only errors that a function does not catch
itself are completed; their types and attributes stay, so that the caller can handle them alike.
"""

import importlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

REPORTERS = "modal._runtime.container_io_manager", "modal._runtime.task_lifecycle_manager"
"""The modules of the SDK that report what a function raises, and print it first."""
COMMAND_NOT_FOUND = 127
"""The exit status of a shell that did not find a program."""
STARTERS = "_execute_child", "_execvpe"
"""The functions of the standard library that fail if there is no such program."""
LIBRARY = re.compile(r"(\S+\.so[\w.]*): cannot open shared object file|library [\"']?([\w.-]+)[\"']? not found", re.I)
ABSENT = re.compile(
    r"not found|not installed|no such|(can'?t|cannot|could not|couldn't|unable to) (find|locate|load)|missing", re.I
)
SHORTEST_WORD = 3


def name_skipped_steps(steps: list[str]) -> None:
    """Complete every error that the SDK reports from now on."""
    for name in REPORTERS:
        module: Any = importlib.import_module(name)
        module.print_exception = _completing(module.print_exception, steps)


def _completing(report: Any, steps: list[str]) -> Any:
    def completed(kind: Any, error: BaseException | None, traceback: Any) -> None:
        found = error
        # A package may raise an error of its own because of the one that tells what is missing.
        seen: set[int] = set()
        while found is not None and id(found) not in seen:
            seen.add(id(found))
            if causes := _causes(found, steps):
                assert error is not None
                _complete(error, causes)
                break
            found = found.__cause__ or found.__context__
        report(kind, error, traceback)

    return completed


def _causes(error: BaseException, steps: list[str]) -> list[str]:
    """The steps that may have caused an error: those that name what is missing; if there are none, all, as long as it
    is the kind of thing that they install."""
    if isinstance(error, FileNotFoundError):
        name = Path(os.fsdecode(error.filename or "")).name
        return _with_word(name, steps) or (steps if _was_started(error) else [])
    if isinstance(error, subprocess.CalledProcessError) and error.returncode == COMMAND_NOT_FOUND:
        words = str(error.cmd).split()
        return [step for step in steps if any(_has(step, word) for word in words)] or steps
    if isinstance(error, ModuleNotFoundError):
        return _with_word((error.name or "").partition(".")[0], steps) or [s for s in steps if s.startswith("FROM ")]
    text = str(error)
    if isinstance(error, ImportError | OSError) and (library := LIBRARY.search(text)):
        stem = (library[1] or library[2]).rpartition("/")[2].partition(".so")[0]
        return _with_word(stem, steps) or _with_word(stem.removeprefix("lib"), steps) or steps
    if ABSENT.search(text):
        words = re.findall(r"[\w.+-]+", text)
        return [step for step in steps if any(word in _packages(step) for word in words)]
    return []


def _with_word(word: str, steps: list[str]) -> list[str]:
    return [step for step in steps if _has(step, word)]


def _has(step: str, word: str) -> bool:
    return len(word) >= SHORTEST_WORD and word.lower() in step.lower()


def _packages(step: str) -> set[str]:
    """The packages that a step installs with apt-get, and their names without what follows a hyphen."""
    _, installs, packages = step.partition("apt-get install")
    names = [name for name in packages.split() if installs and not name.startswith("-") and len(name) >= SHORTEST_WORD]
    return {*names, *(name.partition("-")[0] for name in names)}


def _was_started(error: BaseException) -> bool:
    """Whether what was not found should have been run as a program."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_name in STARTERS


def _complete(error: BaseException, steps: list[str]) -> None:
    which = "this step" if len(steps) == 1 else "these steps"
    more = f"Local Modal skipped {which} of the image: {'; '.join(steps)}"
    if isinstance(error, OSError) and error.strerror:
        error.strerror = f"{error.strerror} ({more})"
        # A copy of an error in another process is made of these.
        error.args = (error.errno, error.strerror)
    elif isinstance(error, ImportError):
        error.msg = f"{error.msg} ({more})"
        error.args = (error.msg,)
    elif type(error) in (OSError, RuntimeError, Exception, ValueError) and len(error.args) == 1:
        error.args = (f"{error.args[0]} ({more})",)
    else:
        error.add_note(more)
