"""What a process that runs a user's code must not have from the process that it was forked from.

That one lives on between tasks, and was itself forked, or restored from a snapshot of memory, like others.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import tempfile

from airflow_serverless.airflow_config import use_secrets_backend

_parents: list[object] = []
"""Kept, as the end of an event loop would change the selector that it shares with the parent's."""


def renew() -> None:
    """Forget it; to be called in the forked process. Python does so itself for `random`, `secrets`, `ssl`, `uuid`."""
    # TMPDIR is this container's, but it may have been looked up in another one.
    tempfile.tempdir = None
    use_secrets_backend()
    process = multiprocessing.current_process()
    process.authkey = os.urandom(32)
    process._config.pop("tempdir", None)  # type: ignore[attr-defined]
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
    # `get_event_loop` would return the one of the parent.
    _parents.append(asyncio.get_event_loop_policy())
    asyncio.set_event_loop_policy(None)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # Modal's SDK cancels inputs by a signal.
        if callable(signal.getsignal(number)) and signal.getsignal(number) is not signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)
