"""The processes below this one: finds, measures and ends them. On Linux; other systems show none."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE_SECONDS = 0.005
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send a signal to this process when its parent, whose id was `parent`, ends. Linux only."""
    if prctl := getattr(_libc, "prctl", None):
        prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Meanwhile, processes whose parents end become children of this one, if it is below them in whatever way.

    Without this, a process that forks twice leaves the tree.
    """
    prctl = getattr(_libc, "prctl", None)
    if prctl is None:
        yield
        return
    before = ctypes.c_int()
    # PR_GET_CHILD_SUBREAPER is the next number.
    prctl(_PR_SET_CHILD_SUBREAPER + 1, ctypes.byref(before), 0, 0, 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def children() -> set[int]:
    """The ids of this process's children, those that have ended and were not waited for among them."""
    return _below({os.getpid()}, _parents())


def end_all_but(kept: set[int], seconds: float) -> bool:
    """Kill the children of this process that are not in `kept`, and what is below them, until there are none.

    Call it while orphans are adopted. Returns whether it came to an end within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while ahead := children() - kept:
        for process in descendants(ahead):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        for process in ahead:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def descendants(roots: set[int]) -> set[int]:
    """The processes and all that is below them."""
    parents = _parents()
    found = ahead = set(roots)
    while ahead := _below(ahead, parents) - found:
        found |= ahead
    return found


def memory_mb(roots: set[int], limit_mb: int) -> int:
    """The memory that processes and those below them have for themselves, in MiB.

    What they share counts once. That takes long to find out, so below the limit it is an estimate from above.
    """
    processes = descendants(roots)
    upper = sum(map(_resident_bytes, processes)) >> 20
    return upper if upper <= limit_mb else sum(map(_proportional_bytes, processes)) >> 20


def _below(roots: set[int], parents: dict[int, int]) -> set[int]:
    return {process for process, parent in parents.items() if parent in roots}


def _parents() -> dict[int, int]:
    """The parents of all processes: {process id: parent's id}."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    # Behind the name of the program, which can have any characters.
                    fields = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
                    found[int(name)] = int(fields[1])
    return found


def _resident_bytes(process: int) -> int:
    try:
        return int(Path("/proc", str(process), "statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def _proportional_bytes(process: int) -> int:
    """Without files, which the kernel can drop."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(process), "smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:", "SwapPss:")):
                total += int(line.split()[1]) << 10
    return total
