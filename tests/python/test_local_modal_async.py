"""The asynchronous side of the SDK, and values of sizes around its limits."""

from __future__ import annotations

from local_modal import LocalModal

ASYNC = """
import asyncio, io
app = modal.App("asynchronous")

@app.function(serialized=True)
async def double(x: int) -> int:
    return 2 * x

@app.function(serialized=True)
async def count(n: int):
    for i in range(n): yield i

@app.function(serialized=True)
def fails() -> None:
    raise LookupError("not here")

@app.cls(serialized=True)
class Adder:
    @modal.enter()
    async def begin(self): self.total = 0
    @modal.method()
    async def add(self, n: int) -> int:
        self.total += n
        return self.total

async def functions(found):
    found["remote"] = await double.remote.aio(2)
    found["map"] = [x async for x in double.map.aio(range(5))]
    found["starmap"] = [x async for x in double.starmap.aio([(1,), (2,)])]
    await double.for_each.aio(range(3))
    call = await double.spawn.aio(21)
    found["spawn"] = await call.get.aio(timeout=60)
    again = await modal.FunctionCall.from_id.aio(call.object_id)
    found["again"] = await again.get.aio(timeout=0)
    found["gathered"] = await modal.FunctionCall.gather.aio(*[await double.spawn.aio(n) for n in range(4)])
    found["generated"] = [x async for x in count.remote_gen.aio(4)]
    adder = Adder()
    found["class"] = [await adder.add.remote.aio(n) for n in (1, 2)]
    try: await fails.remote.aio()
    except LookupError as error: found["error"] = str(error)
    try: await asyncio.wait_for(asyncio.gather(*[double.remote.aio(n) for n in range(30)]), 60)
    except BaseException as error: found["many"] = repr(error)

async def objects(found):
    async with modal.Dict.ephemeral() as d, modal.Queue.ephemeral() as q, modal.Volume.ephemeral() as v:
        await d.update.aio({"a": 1, "b": 2})
        found["dict"] = [await d.get.aio("a"), await d.pop.aio("b"), await d.len.aio(), [k async for k in d.keys.aio()]]
        await q.put_many.aio([1, 2, 3])
        found["queue"] = [await q.get.aio(), await q.get_many.aio(5), await q.len.aio()]
        async with v.batch_upload() as batch: batch.put_file(io.BytesIO(b"text"), "/a/b")
        await v.copy_files.aio(["a/b"], "c")
        found["volume"] = [[e.path for e in await v.listdir.aio("/", recursive=True)].sort(),
                           b"".join([part async for part in v.read_file.aio("c")]).decode()]
        await v.remove_file.aio("a", recursive=True)
        found["left"] = [entry.path async for entry in v.iterdir.aio("/")]
    found["gone"] = "alive"
    try: await d.len.aio()
    except Exception as error: found["gone"] = type(error).__name__

async def main():
    found = {}
    async with app.run():
        await functions(found)
    await objects(found)
    answer(found)

asyncio.run(main())
"""


def test_async_calls_return_the_expected_results(sample_modal: LocalModal) -> None:
    found = sample_modal.sdk(ASYNC)
    assert found.pop("gone") in {"NotFoundError", "alive"}
    assert found == {
        "remote": 4,
        "map": [0, 2, 4, 6, 8],
        "starmap": [2, 4],
        "spawn": 42,
        "again": 42,
        "gathered": [0, 2, 4, 6],
        "generated": [0, 1, 2, 3],
        "class": [1, 3],
        "error": "not here",
        "dict": [1, 2, 1, ["a"]],
        "queue": [1, [2, 3], 0],
        "volume": [None, "text"],
        "left": ["c"],
    }


def test_values_around_size_limits_round_trip(sample_modal: LocalModal) -> None:
    # The limits of the SDK are of pickled values, which are a few bytes longer.
    script = """
    echo, make = [modal.Function.from_name("sample", name) for name in ("echo", "make_large")]
    limits = [8 << 10, 2 << 20, 10 << 20]
    lengths = [0, 1, *[limit + more for limit in limits for more in (-64, -12, 0, 1)]]
    calls = [echo.spawn(bytes(length)) for length in lengths]
    wrong = {
        "remote": [n for n in lengths if echo.remote(bytes(n)) != bytes(n)],
        "spawn": [n for n, call in zip(lengths, calls) if call.get(timeout=60) != bytes(n)],
        "map": [n for n, r in zip(lengths, make.map(lengths)) if len(r) != n],
        "largest": [] if echo.remote(bytes(60 << 20)) == bytes(60 << 20) else [60],
    }
    answer(wrong)
    """
    assert sample_modal.sdk(script) == {"remote": [], "spawn": [], "map": [], "largest": []}
