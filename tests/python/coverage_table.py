"""Writes modal/emulator/COVERAGE.md: how Local Modal supports the features of the installed SDK, which RPCs it
implements, and which tests call each RPC.

`make coverage-table` runs the tests with LOCAL_MODAL_RPCS set, a file to which every
server's counts are appended, and then this script. Without that file, the tests in the existing table are kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2

import sdk_features
from local_modal import REPOSITORY, LocalModal, binary

TABLE = REPOSITORY / "modal/emulator/COVERAGE.md"
SERVICE = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]
METHODS: dict[str, MethodDescriptor] = dict(SERVICE.methods_by_name)
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.*) \|$", re.MULTILINE)
ANSWER_LIMIT = 5.0
SHOWN_TESTS = 4
UNIMPLEMENTED = "UNIMPLEMENTED"
IMPLEMENTED = "implemented"
# Nouns of more than one word, and of none.
NOUNS = {"Shared": "SharedVolume", "Service": "ServiceUser", "Audit": "AuditLog", "Persistent": "PersistentSandbox"}
# Where Local Modal does less than Modal. Everything else is meant to be the same.
PARTLY = {
    "AppCreate": "the URL of the page of an app or a deployment leads nowhere",
    "AppDeploymentHistory": "the last 200 versions",
    "AppFetchLogs": "at most 10,000 lines at once; the oldest lines of an app are dropped when it has many",
    "AppRollback": "to one of the last 20 versions",
    "EnvironmentUpdate": "a web suffix has no effect on URLs",
    "FunctionBindParams": "options for GPUs are refused, or ignored with `--ignore-gpu`",
    "FunctionCallPutDataOut": "a generator that is 64 MiB ahead waits, and is cancelled when nobody reads for a minute",
    "FunctionCreate": "memory is enforced; CPU and regions are accepted and do nothing; GPUs are refused, or ignored "
    "with `--ignore-gpu`; sessions, buckets, clusters, limits of the network, proxies and custom domains are refused",
    "FunctionPutInputs": "at most 100,000 inputs of a function wait",
    "ImageGetOrCreate": "the Python part of a recipe; other steps are refused, skipped with `--images=skip`, or run on "
    "this machine with `--unsafe-run-commands`; `ENTRYPOINT` and `USER` do nothing",
    "TaskGetInfo": "containers that run, and the last 1,000 that ended since the server started",
    "TokenInfoGet": "on a Unix socket any token is taken, on a port the one that `modal-local env` prints",
    "VolumeCommit": "has an effect with `--volumes=strict` only",
    "VolumeReload": "has an effect with `--volumes=strict` only",
    "WebhookTokenListForEnvironment": "a token is good in every environment",
}
HEAD = """# What Local Modal implements

Written by `make coverage-table` from the descriptors of the Modal SDK {version}, the answers of a server, and the
requests that it counted while the tests ran; a test fails when it is no longer true. Beyond the limits below, the top
of [lib.rs](src/lib.rs) lists the differences between Local Modal and Modal.

## Features of the SDK

A *refused* feature fails with its name when it is deployed or used. An *ignored* one is accepted and has no effect. A
*removed* one is refused by the SDK itself. `tests/python/test_local_modal_features.py` tests each row. A parameter has
one row for `App.function`, `App.cls` and `App.server`.

{features}{rpcs}

Of {total} RPCs, {implemented} are implemented. The others fail with `UNIMPLEMENTED` and their name. In the column of
tests, `apps` is `tests/python/test_local_modal_apps.py`, and `functions_tick` is `tests/python/test_functions_tick.py`.

"""
RPCS = "## RPCs"


async def _is_implemented(channel: Channel, method: MethodDescriptor) -> bool:
    """Whether an empty request gets any other answer than UNIMPLEMENTED."""
    request = message_factory.GetMessageClass(method.input_type)
    reply = message_factory.GetMessageClass(method.output_type)
    kind = Cardinality.UNARY_STREAM if method.server_streaming else Cardinality.UNARY_UNARY
    path = f"/{SERVICE.full_name}/{method.name}"
    try:
        async with channel.request(path, kind, request, reply, timeout=ANSWER_LIMIT) as stream:
            await stream.send_message(request(), end=True)
            await stream.recv_message()
    except GRPCError as error:
        return error.status is not Status.UNIMPLEMENTED
    except TimeoutError:
        # It waits for something, so it is implemented.
        return True
    return True


async def _ask_all(socket: str) -> set[str]:
    channel = Channel(path=socket)
    try:
        answers = await asyncio.gather(*(_is_implemented(channel, method) for method in METHODS.values()))
    finally:
        channel.close()
    return {name for name, answered in zip(METHODS, answers, strict=True) if answered}


def implemented_by(server: LocalModal) -> set[str]:
    """Return the names of the RPCs that a server implements."""
    return asyncio.run(_ask_all(server.url.removeprefix("unix://")))


def noun(rpc: str) -> str:
    """What an RPC is about: its first word, mostly."""
    first = re.match(r"[A-Z]+[a-z]*|[A-Z][a-z]*", rpc)
    assert first, rpc
    return NOUNS.get(first[0], first[0])


def read_table() -> dict[str, tuple[str, str]]:
    """What the checked-in table says of each RPC: its state and its tests."""
    return {rpc: (state, tests) for rpc, state, tests in ROW.findall(TABLE.read_text().partition(RPCS)[2])}


def _tests(counts: Path) -> dict[str, str]:
    """The tests of each RPC; those named after its noun come first."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in counts.read_text().splitlines():
        entry = json.loads(line)
        for rpc in entry["rpcs"]:
            found[rpc].add(entry["test"].removeprefix("test_").removeprefix("local_modal_").removesuffix(".py"))
    cells = {}
    for rpc, names in found.items():
        ordered = sorted(names, key=lambda name, rpc=rpc: (noun(rpc).lower() not in name, name))
        more = f" and {len(ordered) - SHOWN_TESTS} more" if len(ordered) > SHOWN_TESTS else ""
        cells[rpc] = ", ".join(ordered[:SHOWN_TESTS]) + more
    return cells


def render(implemented: set[str], tests: dict[str, str], version: str) -> str:
    """The whole document."""
    features = sdk_features.render()
    text = HEAD.format(version=version, features=features, rpcs=RPCS, total=len(METHODS), implemented=len(implemented))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for rpc in sorted(METHODS):
        groups[noun(rpc)].append(rpc)
    for name, rpcs in sorted(groups.items()):
        text += f"### {name}\n\n| RPC | state | tests |\n|---|---|---|\n"
        for rpc in rpcs:
            state = (
                (f"partly: {PARTLY[rpc]}" if rpc in PARTLY else IMPLEMENTED) if rpc in implemented else UNIMPLEMENTED
            )
            text += f"| `{rpc}` | {state} | {tests.get(rpc, '')} |\n"
        text += "\n"
    return text.rstrip() + "\n"


def main() -> None:
    import modal

    if "MODAL_LOCAL_BIN" not in os.environ and not binary().exists():
        sys.exit("build modal-local first: cargo build -p modal-emulator")
    counts = Path(os.environ["LOCAL_MODAL_RPCS"]) if "LOCAL_MODAL_RPCS" in os.environ else None
    tests = _tests(counts) if counts else {rpc: cell for rpc, (_, cell) in read_table().items()}
    server = LocalModal()
    server.start()
    try:
        implemented = implemented_by(server)
    finally:
        server.close()
    TABLE.write_text(render(implemented, tests, modal.__version__))


if __name__ == "__main__":
    main()
