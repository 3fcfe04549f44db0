"""What makes importing Airflow cheaper: a third of its processor time, which each cold container has to wait for."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

NOT_NEEDED = ("svcs.aiohttp",)
"""Modules of a library of Airflow's that imports whatever web framework it finds; this one is Modal's."""


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """While Airflow is imported here: no garbage collections, for what is imported stays, and nothing that nobody uses.

    Afterwards all of it can be imported, and garbage is collected as before, but not among what is there by then: the
    first collection would look through all of it, for longer than a tenth of the imports, and copy the pages that a
    forked process shares.
    """
    collects = gc.isenabled()
    gc.disable()
    left_out = [name for name in NOT_NEEDED if name not in sys.modules]
    # The import system takes None for a module that cannot be imported.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
        gc.freeze()
        if collects:
            gc.enable()
