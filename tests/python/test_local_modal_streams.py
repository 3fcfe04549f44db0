"""Generators: from the client and between functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_modal import APPS, LocalModal, wait_until


@pytest.fixture(scope="module")
def streams() -> Iterator[LocalModal]:
    server = LocalModal()
    server.start()
    deployed = server.deploy(APPS / "stream_app.py")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    yield server
    server.close()


def test_values_arrive_in_order_before_an_exception(streams: LocalModal) -> None:
    found = streams.sdk("""
        import asyncio
        from stream_app import OddError
        named = lambda name: modal.Function.from_name("streams", name)
        count = named("count")
        seen = []
        try:
            for value in count.remote_gen(5, fail_at=3):
                seen.append(value)
        except OddError as error:
            seen.append(str(error))
        async def slowly():
            return [value async for value in named("count_slowly").remote_gen.aio(4, 0.01)]
        try:
            count.remote(1)
        except modal.exception.InvalidError as error:
            refused = "remote_gen" in str(error)
        answer({
            "all": list(count.remote_gen(300)) == list(range(300)),
            "none": list(count.remote_gen(0)),
            "failed": seen,
            "async": asyncio.run(slowly()),
            "nested": [named("sum_up").remote(10), named("sum_up_async").remote(5)],
            "method": list(modal.Cls.from_name("streams", "Counter")().upwards.remote_gen(3)),
            "refused": refused,
        })
    """)
    # The SDK waits for the values and for the end at once, so that an exception may come before the last values.
    *values, failure = found.pop("failed")
    assert (values, failure) == (list(range(len(values))), "at 3") and len(values) <= 3
    assert found == {
        "all": True,
        "none": [],
        "async": [0, 1, 2, 3],
        "nested": [45, 10],
        "method": [100, 101, 102],
        "refused": True,
    }


def test_values_arrive_as_they_are_yielded(streams: LocalModal) -> None:
    found = streams.sdk("""
        notes = modal.Dict.from_name("stream-notes")
        seen = []
        for value in modal.Function.from_name("streams", "step").remote_gen("step", 3):
            seen.append(value)
            notes["step"] = value
        answer(seen)
    """)
    assert found == [0, 1, 2]


def test_large_streams_arrive_and_can_be_abandoned(streams: LocalModal) -> None:
    found = streams.sdk("""
        named = lambda name: modal.Function.from_name("streams", name)
        sizes = [len(block) for block in named("blocks").remote_gen(20, 3 << 20)]
        large = [(len(block), block[:1] == block[-1:]) for block in named("blocks").remote_gen(2, 40 << 20)]
        for value in named("count").remote_gen(100_000):
            if value == 10:
                break
        answer([sizes, large, value])
        # At its exit the SDK (1.6.4) waits for ever for a reader of the values that it still has in its queue.
        sys.stdout.flush()
        os._exit(0)
    """)
    assert found == [[3 << 20] * 20, [[40 << 20, True]] * 2, 10]


def test_generator_pauses_when_far_ahead_of_its_reader(streams: LocalModal) -> None:
    reader = streams.begin_sdk("""
        next(iter(modal.Function.from_name("streams", "unread").remote_gen("unread")))
        os._exit(0)
    """)
    assert reader.wait(60) == 0
    reached = streams.sdk("""
        notes, last = modal.Dict.from_name("stream-notes"), -1
        # On a busy machine it may pause before it has to.
        while (reached := notes["unread"]) != last or reached <= 512:
            last = reached
            time.sleep(1.0)
        answer(reached)
    """)
    # 64 MiB are 512 values; the container keeps 1,024 more for itself, and some are on their way.
    assert 512 < reached < 3_000


def test_files_of_streams_are_private(streams: LocalModal) -> None:
    wait_until(lambda: list((streams.data / "streams").iterdir()), "a file of a stream")
    assert (streams.data / "streams").stat().st_mode & 0o077 == 0
