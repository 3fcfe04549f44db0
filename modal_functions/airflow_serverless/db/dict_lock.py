"""A lease in the shared Dict, with a number that only grows, so that an expired holder can be succeeded but once.

Each tenure has a key of its own, `lock:{name}:{fence}`. Who manages to create the key of the next fence holds the lock;
creating a key that exists fails, so two successors of one expired tenure cannot both win. `lock:{name}` only tells
where to start looking, and shows the holder to people.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from typing import TypedDict

import modal
import modal.exception

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
SAFETY_SECONDS = 5.0
"""A holder stops trusting its lease this long before it ends: clocks differ and writes take time."""
KEPT_TENURES = 3
POLL_SECONDS = 0.2


class Tenure(TypedDict):
    """Who holds a lock, and until when (seconds since 1970)."""

    owner: str
    fence: int
    expires_at: float


class DictLock:
    """One lock; an instance is one contender. Thread-safe only in that renewal runs beside the holder."""

    def __init__(self, store: modal.Dict, name: str, owner: str | None = None) -> None:
        """Prepare to contend for a lock.

        `owner` is the id of the Function call. Modal delivers a call again only when its container is gone, so an owner
        that finds its own lease is its own successor and need not wait for the lease to expire.
        """
        self._store = store
        self._name = name
        self._owner = owner or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._fence = 0
        self._trusted_until = 0.0
        self._stop: threading.Event | None = None
        self._writing = threading.Lock()

    @property
    def fence(self) -> int:
        """Number of the current tenure."""
        return self._fence

    def acquire(self, timeout: float, above: int = 0) -> bool:
        """Try for `timeout` seconds (0: once). The fence will be greater than `above`."""
        deadline = time.monotonic() + timeout
        while not self._try_acquire(above):
            if time.monotonic() >= deadline:
                return False
            threading.Event().wait(POLL_SECONDS)
        self._stop = threading.Event()
        threading.Thread(target=self._renew, args=(self._stop, self._fence), name="lock-renewal", daemon=True).start()
        return True

    def is_held(self) -> bool:
        """Whether the tenure is certainly still ours: not near its end, and without a successor."""
        if self._stop is None or time.monotonic() >= self._trusted_until:
            return False
        return self._store.get(self._key(self._fence + 1)) is None

    def release(self) -> None:
        """Give the lock up; does nothing if it is not held."""
        if self._stop is None:
            return
        self._stop.set()
        self._stop = None
        ended: Tenure = {"owner": self._owner, "fence": self._fence, "expires_at": 0.0}
        with self._writing:
            self._store.update({self._key(self._fence): ended, self._key(): ended})

    def _try_acquire(self, above: int) -> bool:
        hint = self._store.get(self._key())
        fence = max(int(hint["fence"]) if hint else 0, above)
        if fence and (tenure := self._store.get(self._key(fence))) and self._is_held_by_another(tenure):
            return False
        while True:
            fence += 1
            started = time.monotonic()
            tenure = {"owner": self._owner, "fence": fence, "expires_at": time.time() + LEASE_SECONDS}
            if self._store.put(self._key(fence), tenure, skip_if_exists=True):
                break
            found = self._store.get(self._key(fence))
            if found == tenure:
                # The answer to the request that created it was lost, and its repetition found the key taken.
                break
            if found is None or self._is_held_by_another(found):
                return False
        self._fence = fence
        self._trusted_until = started + LEASE_SECONDS - SAFETY_SECONDS
        if time.monotonic() >= self._trusted_until:
            return False
        self._store.put(self._key(), tenure)
        self._store.pop(self._key(fence - KEPT_TENURES), None)
        return True

    def _is_held_by_another(self, tenure: Tenure) -> bool:
        return tenure["expires_at"] > time.time() and tenure["owner"] != self._owner

    def _renew(self, stop: threading.Event, fence: int) -> None:
        """Extend the lease until `stop` is set or another owner succeeds.

        A failed request is retried; if that takes too long, `is_held` no longer trusts the lease.
        """
        while not stop.wait(RENEW_SECONDS):
            started = time.monotonic()
            try:
                if self._store.get(self._key(fence + 1)) is not None:
                    self._trusted_until = 0.0
                    return
                with self._writing:
                    if stop.is_set():
                        return
                    expires = time.time() + LEASE_SECONDS
                    renewed: Tenure = {"owner": self._owner, "fence": fence, "expires_at": expires}
                    self._store.update({self._key(fence): renewed, self._key(): renewed})
            except (modal.exception.Error, OSError) as error:
                print(f"lock {self._name}: renewal failed: {error}")
                continue
            self._trusted_until = started + LEASE_SECONDS - SAFETY_SECONDS

    def _key(self, fence: int | None = None) -> str:
        return f"lock:{self._name}" if fence is None else f"lock:{self._name}:{fence}"
