"""Queues on Local Modal, used with the real SDK."""

from __future__ import annotations

import json
import signal
import time

from local_modal import LocalModal

USE = """
import queue, threading
q = modal.Queue.from_name("q", create_if_missing=True)
q.put("some value")
q.put_many([1, {"two": 2}, None])
q.put("other", partition="p")
found = {
    "lens": [q.len(), q.len(partition="p"), q.len(partition="none"), q.len(total=True)],
    "iterated": [v for v in q.iterate()],
    "first": q.get(), "many": q.get_many(2), "rest": q.get_many(9), "left": q.get(block=False),
    "nothing": [q.get_many(3, block=False), failure(lambda: q.get(timeout=0.1)),
                failure(lambda: q.get_many(2, timeout=0))],
    "partition": q.get(partition="p"), "wrong": failure(lambda: q.put(1, partition="x" * 65)),
    "ids": modal.Queue.from_id(q.object_id).len(), "missing": failure(lambda: modal.Queue.from_name("nope").len()),
}
for n in range(3): q.put(n, partition="a"); q.put(n, partition="b")
q.clear(partition="a")
found["cleared"] = [q.len(partition="a"), q.len(partition="b"), q.len(total=True)]
q.clear(all=True)
found["all"] = q.len(total=True)

started = time.monotonic()
threading.Timer(0.3, lambda: q.put("late")).start()
found["waited"] = [q.get(timeout=30), time.monotonic() - started < 10]
threading.Timer(0.3, lambda: q.put("later")).start()
found["polled"] = [v for v in q.iterate(item_poll_timeout=2)]

with modal.Queue.ephemeral() as e:
    e.put(1)
    found["ephemeral"] = [e.get(), e.name]
found["named"] = [q.name for q in modal.Queue.objects.list()]
answer(found)
"""


def test_queue_methods_return_the_expected_values(sample_modal: LocalModal) -> None:
    assert sample_modal.sdk(USE) == {
        "lens": [4, 1, 0, 5],
        "iterated": ["some value", 1, {"two": 2}, None],
        "first": "some value",
        "many": [1, {"two": 2}],
        "rest": [None],
        "left": None,
        "nothing": [[], "Empty", "Empty"],
        "partition": "other",
        "wrong": "InvalidError",
        "ids": 0,
        "missing": "NotFoundError",
        "cleared": [0, 3, 3],
        "all": 0,
        "waited": ["late", True],
        "polled": ["later"],
        "ephemeral": [1, ""],
        "named": ["q"],
    }


def test_full_queue_and_oversized_items_are_refused(sample_modal: LocalModal) -> None:
    script = """
    import threading
    with modal.Queue.ephemeral() as q:
        q.put_many(list(range(5000)))
        found = [failure(lambda: q.put(1, block=False)), failure(lambda: q.put_many([1, 2], timeout=0.2)), q.len()]
        q.put("another", partition="p", block=False)
        threading.Timer(0.3, lambda: q.get_many(10)).start()
        q.put("in the end", timeout=30)
        fits, too_large = bytes((1 << 20) - 100), bytes(1 << 20)
        found += [q.len(), q.get(), [failure(lambda: q.put(v, partition="p")) for v in (fits, too_large)]]
        found += [failure(lambda: q.put_many(list(range(5001)), partition="q")), q.len(partition="q")]
        found += [failure(lambda: q.put_many([bytes(1000 << 10)] * 66, partition="r"))]
        answer(found)
    """
    found = sample_modal.sdk(script)
    full = ["Full", "Full", 5000]
    assert found == [*full, 4991, 10, [None, "InvalidError"], "InvalidError", 0, "InvalidError"]


def test_partitions_expire(sample_modal: LocalModal) -> None:
    script = """
    with modal.Queue.ephemeral() as q:
        q.put("short", partition="p", partition_ttl=1)
        q.put("long", partition="q")
        before = q.len(total=True)
        until = time.monotonic() + 20
        while q.len(partition="p") and time.monotonic() < until: time.sleep(0.05)
        q.put("anew", partition="p")
        answer([before, q.len(total=True), q.get(partition="p"), list(q.iterate(partition="q"))])
    """
    assert sample_modal.sdk(script) == [2, 2, "anew", ["long"]]


def test_each_item_goes_to_one_of_many_getters(sample_modal: LocalModal) -> None:
    script = """
    import asyncio
    async def main():
        async with modal.Queue.ephemeral() as q:
            async def consume():
                got = []
                while (value := await q.get.aio(timeout=60)) is not None: got.append(value)
                return got
            consumers = [asyncio.create_task(consume()) for _ in range(8)]
            await asyncio.gather(*[q.put.aio(n) for n in range(200)])
            await q.put_many.aio([None] * 8)
            got = await asyncio.gather(*consumers)
            answer([sorted(sum(got, [])) == list(range(200)), await q.len.aio()])
    asyncio.run(main())
    """
    assert sample_modal.sdk(script) == [True, 0]


def test_queues_connect_a_container_and_its_caller(sample_modal: LocalModal) -> None:
    script = """
    q = modal.Queue.from_name("to-caller", create_if_missing=True).hydrate()
    with modal.Queue.ephemeral() as own:
        call = modal.Function.from_name("sample", "forward").spawn(own, q)
        own.put_many([1, 2, None])
        answer([q.get(timeout=60), q.get(timeout=60), call.get(timeout=60)])
    """
    assert sample_modal.sdk(script) == [1, 2, 2]


def test_queue_items_are_delivered_once_across_a_kill(local_modal: LocalModal) -> None:
    fill = """
    q = modal.Queue.from_name("durable", create_if_missing=True)
    q.put_many(list(range(100)))
    q.put("p", partition="p")
    with modal.Queue.ephemeral() as e: e.put(1)
    answer([q.get_many(40), next(iter(q.iterate()))])
    """
    got, next_one = local_modal.sdk(fill)
    local_modal.stop(signal.SIGKILL)
    local_modal.start()
    rest = """
    q = modal.Queue.from_name("durable")
    q.put("after")
    answer([q.get_many(1000), q.get(partition="p"), q.len(total=True)])
    """
    rest_of_it, other, left = local_modal.sdk(rest)
    assert next_one == 40
    assert got + rest_of_it == [*range(100), "after"]
    assert (other, left) == ("p", 0)


def test_queue_commands_create_read_and_delete(sample_modal: LocalModal) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = sample_modal.modal("queue", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    run("create", "from-cli")
    sample_modal.sdk("q = modal.Queue.from_name('from-cli'); q.put_many(['a', 'b']); q.put('c', partition='p')")
    assert run("peek", "from-cli", "5").split() == ["a", "b"]
    assert run("len", "from-cli").strip() == "2"
    assert run("len", "from-cli", "--total").strip() == "3"
    (row,) = [row for row in json.loads(run("list", "--json")) if row["name"] == "from-cli"]
    assert (row["partitions"], row["total_size"], row["total_size_truncated"]) == (2, 3, False)
    run("clear", "from-cli", "-p", "p", "--yes")
    assert run("len", "from-cli", "--total").strip() == "2"
    run("delete", "from-cli", "--yes")
    run("len", "from-cli", code=1)


def test_listings_beyond_one_page_are_complete(sample_modal: LocalModal) -> None:
    script = """
    import asyncio
    async def main():
        kinds = (modal.Queue, modal.Dict, modal.Volume)
        await modal.Environment.objects.create.aio("many")
        for kind in kinds:
            await asyncio.gather(*[kind.objects.create.aio(f"n{n}", environment_name="many") for n in range(205)])
        found = [await kind.objects.list.aio(environment_name="many") for kind in kinds]
        some = await modal.Queue.objects.list.aio(environment_name="many", max_objects=3)
        answer([[len(objects), len({o.name for o in objects})] for objects in found]
               + [[s.name for s in some] == [o.name for o in found[0][:3]]])
    asyncio.run(main())
    """
    started = time.monotonic()
    assert sample_modal.sdk(script) == [[205, 205]] * 3 + [True]
    assert time.monotonic() - started < 60
