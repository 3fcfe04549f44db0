"""An app for what containers have to do with the options of their functions.

Without postponed annotations, as class parameters need them.
"""

import asyncio
import os
import threading
import time

import modal

app = modal.App("pools")
notes = modal.Dict.from_name("pool-notes", create_if_missing=True)
image = modal.Image.debian_slim()
first, second = modal.Secret.from_dict({"WHICH": "first"}), modal.Secret.from_dict({"WHICH": "second"})
VERSION = int(os.environ.get("POOL_VERSION", "1"))
three = threading.Barrier(3)


@app.function(image=image, secrets=[first, modal.Secret.from_dict({"POOL_VERSION": str(VERSION)})])
def which() -> tuple[str, int, int]:
    return os.environ["WHICH"], os.getpid(), VERSION


@app.function(image=image)
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.function(image=image)
def meet() -> int:
    """Returns once three run at the same time in this container."""
    three.wait(60)
    return os.getpid()


@app.function(image=image)
@modal.concurrent(max_inputs=6, target_inputs=2)
async def crowd(marker: str, size: int) -> int:
    """Returns when so many run at once, in whichever containers."""
    await notes.put.aio(f"{marker}-{os.getpid()}-{id(asyncio.current_task())}", True)
    while len([key async for key in notes.keys.aio() if key.startswith(marker)]) < size:
        await asyncio.sleep(0.05)
    return os.getpid()


@app.function(image=image)
@modal.batched(max_batch_size=4, wait_ms=2_000)
def batch(values: list[int]) -> list[list[int]]:
    if -1 in values:
        raise ValueError("minus one")
    return [values for _ in values]


@app.function(image=image)
def unpicklable() -> object:
    return threading.Lock()


@app.function(image=image)
def leaf(x: int) -> int:
    return x + 1


@app.function(image=image)
def branch(x: int) -> int:
    return sum(modal.FunctionCall.gather(leaf.spawn(x), leaf.spawn(x + 1)))


@app.function(image=image)
def root(x: int) -> int:
    return branch.remote(x) + sum(leaf.map(range(3)))


@app.function(image=image, max_containers=1)
async def sleepy(marker: str) -> None:
    try:
        await notes.put.aio(marker, "running")
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        notes[marker] = "cancelled"
        raise


@app.cls(image=image)
class Model:
    name: str = modal.parameter()
    size: int = modal.parameter(default=3)
    big: bool = modal.parameter(default=False)

    @modal.enter()
    def begin(self) -> None:
        self.calls = 0

    @modal.method()
    def call(self) -> dict[str, object]:
        self.calls += 1
        return {"who": f"{self.name}/{self.size}/{self.big}", "pid": os.getpid(), "calls": self.calls}

    @modal.method()
    def other(self) -> int:
        return self.calls

    @modal.exit()
    def end(self) -> None:
        notes[f"exit-{self.name}"] = self.calls


@app.cls(image=image)
class Plain:
    @modal.method()
    def pid(self) -> tuple[int, str]:
        return os.getpid(), os.environ.get("WHICH", "none")


@app.cls(image=image)
class Together:
    @modal.batched(max_batch_size=3, wait_ms=1_000)
    def together(self, values: list[int]) -> list[int]:
        return [len(values) for _ in values]


@app.local_entrypoint()
def main(word: str, times: int = 2) -> None:
    print("entry", word * times, leaf.remote(times))
