"""Ends an interrupted container without tracebacks. The errors that the interruption causes in the SDK, in other
threads and in half-constructed objects are not printed: nobody can act on them.

Uses only the standard library. The hooks that it replaces (`sys.excepthook`, `threading.excepthook`,
`sys.unraisablehook`, `signal.default_int_handler`) stay replaced.
"""

import functools
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Never


class Interruption:
    """Whether this process was interrupted."""

    def __init__(self) -> None:
        self.occurred = False

    def install(self) -> None:
        """Record an interruption, and print no traceback that it causes."""
        # asyncio restores this handler when one of its loops ends.
        signal.default_int_handler = self._interrupt
        signal.signal(signal.SIGINT, self._interrupt)
        sys.excepthook = self._silent(sys.excepthook, lambda error, *_: issubclass(error, KeyboardInterrupt))
        threading.excepthook = self._silent(threading.excepthook, lambda failed: failed.exc_type is KeyboardInterrupt)
        # These are errors of half-constructed objects.
        sys.unraisablehook = self._silent(sys.unraisablehook, lambda _: self.occurred)

    def _interrupt(self, *_: int | FrameType | None) -> Never:
        self.occurred = True
        raise KeyboardInterrupt

    @staticmethod
    def _silent(hook: Callable[..., Any], is_silent: Callable[..., bool]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def filtered(*arguments: Any) -> None:
            if not is_silent(*arguments):
                hook(*arguments)

        return filtered
