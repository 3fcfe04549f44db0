"""The one seam between this package and Modal's function calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import modal
import modal.exception


@dataclass(frozen=True)
class Outcome:
    """How a call ended; `error` is None if it returned."""

    error: str | None


class Launcher:
    """Calls the functions of one deployed app."""

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name

    def spawn_task(self, payload: dict[str, Any]) -> str:
        """Start `execute_task`, for a task or a callback, and return the id of the call."""
        return self._spawn("execute_task", payload)

    def spawn_tick(self, reason: str) -> str:
        """Start `run_tick`; callers leave the wake mark first."""
        return self._spawn("run_tick", reason)

    def spawn_gate(self) -> str:
        """Start `scheduler_tick`, which waits for what is due soon."""
        return self._spawn("scheduler_tick")

    def spawn_triggerer(self) -> str:
        """Start `run_triggers`; callers leave the note of a triggerer first."""
        return self._spawn("run_triggers")

    def outcome(self, call_id: str) -> Outcome | None:
        """None while the call is waiting or running. Raises if Modal cannot be reached."""
        try:
            modal.FunctionCall.from_id(call_id).get(timeout=0)
        except TimeoutError:
            return None
        except modal.exception.ConnectionError:
            raise
        except modal.exception.NotFoundError:
            return Outcome("the call is unknown to Modal")
        except Exception as error:
            return Outcome(f"{type(error).__name__}: {error}")
        return Outcome(None)

    def cancel(self, call_id: str) -> None:
        """Stop a call that runs work nobody waits for; one that is over or unknown is left alone."""
        try:
            modal.FunctionCall.from_id(call_id).cancel()
        except modal.exception.NotFoundError:
            return

    def _spawn(self, function: str, *arguments: Any) -> str:
        call = modal.Function.from_name(self._app_name, function).spawn(*arguments)
        return str(call.object_id)
