"""The scheduler lock: one holder at a time, also when holders die."""

from __future__ import annotations

from local_modal import LocalModal

PRELUDE = """
import sys; sys.path.insert(0, {functions!r})
from airflow_serverless.db import dict_lock
from airflow_serverless.db.dict_lock import DictLock
store = modal.Dict.from_name("locks", create_if_missing=True)
store.clear()
def expire(lock):
    key = f"lock:s:{{lock.fence}}"
    store[key] = {{**store[key], "expires_at": 0.0}}
"""


def run(modal: LocalModal, script: str) -> object:
    from environment import FUNCTIONS

    return modal.sdk(PRELUDE.format(functions=str(FUNCTIONS)) + script)


def test_held_lock_cannot_be_acquired(shared_modal: LocalModal) -> None:
    script = """
one, two = DictLock(store, "s"), DictLock(store, "s")
first = [one.acquire(0), two.acquire(0), one.is_held(), two.is_held()]
one.release()
answer([first, one.is_held(), two.acquire(0), two.fence > one.fence, one.acquire(0.3)])
two.release()
"""
    assert run(shared_modal, script) == [[True, False, True, False], False, True, True, False]


def test_expired_lock_is_acquired_once(shared_modal: LocalModal) -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
dead = DictLock(store, "s")
assert dead.acquire(0)
expire(dead)
locks = [DictLock(store, "s") for _ in range(8)]
with ThreadPoolExecutor(8) as pool:
    won = list(pool.map(lambda lock: lock.acquire(0), locks))
answer([won.count(True), dead.is_held(), [lock.is_held() for lock in locks].count(True)])
"""
    assert run(shared_modal, script) == [1, False, 1]


def test_lease_is_renewed_while_held(shared_modal: LocalModal) -> None:
    script = """
import time
dict_lock.RENEW_SECONDS = 0.05
lock = DictLock(store, "s")
assert lock.acquire(0)
before = store["lock:s:1"]["expires_at"]
deadline = time.monotonic() + 20
while store["lock:s:1"]["expires_at"] == before and time.monotonic() < deadline:
    time.sleep(0.02)
renewed = store["lock:s:1"]["expires_at"] > before
lock.release()
answer([renewed, store["lock:s:1"]["expires_at"], DictLock(store, "s").acquire(0, above=40), store["lock:s"]["fence"]])
"""
    assert run(shared_modal, script) == [True, 0.0, True, 41]


def test_lost_reply_does_not_lose_the_lock(shared_modal: LocalModal) -> None:
    script = """
class Lossy:
    def __getattr__(self, name): return getattr(store, name)
    def put(self, *arguments, **keywords):
        written = store.put(*arguments, **keywords)
        return False if keywords.get("skip_if_exists") else written
answer(DictLock(Lossy(), "s").acquire(0))
"""
    assert run(shared_modal, script) is True


def test_redelivered_call_takes_over_its_own_lock(shared_modal: LocalModal) -> None:
    script = """
lost, again, other = DictLock(store, "s", "fc-1"), DictLock(store, "s", "fc-1"), DictLock(store, "s", "fc-2")
assert lost.acquire(0)
answer([other.acquire(0), again.acquire(0), again.fence > lost.fence, lost.is_held(), again.is_held()])
"""
    assert run(shared_modal, script) == [False, True, True, False, True]
