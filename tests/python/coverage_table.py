"""Writes modal/emulator/COVERAGE.md: what Local Modal makes of the features of the installed SDK, what it answers, RPC
by RPC, and which tests ask it.

`make coverage-table` runs the tests with LOCAL_MODAL_RPCS set, which is a file that the counts of every server go to,
and then this script. Without that file the tests that the present table names are kept.
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
SPOKEN = "spoken"
# Nouns of more than one word, and of none.
NOUNS = {"Shared": "SharedVolume", "Service": "ServiceUser", "Audit": "AuditLog", "Persistent": "PersistentSandbox"}
# Where less is done than on Modal. What is not said here is meant to be the same.
PARTLY = {
    "AppCreate": "the page of an app, as of a deployment, is a name that leads nowhere",
    "AppDeploymentHistory": "the last 200 versions",
    "AppFetchLogs": "at most 10,000 lines at once; the oldest lines of an app go when it has many",
    "AppRollback": "to one of the last 20 versions",
    "EnvironmentUpdate": "a web suffix makes no difference to URLs",
    "FunctionBindParams": "options for GPUs are refused, or ignored with `--ignore-gpu`",
    "FunctionCallPutDataOut": "a generator that is 64 MiB ahead waits, and is cancelled when nobody reads for a minute",
    "FunctionCreate": "memory is enforced; CPU and regions are accepted and do nothing; GPUs are refused, or ignored "
    "with `--ignore-gpu`; sessions, buckets, clusters, limits of the network, proxies and custom domains are refused",
    "FunctionPutInputs": "at most 100,000 inputs of a function wait",
    "ImageGetOrCreate": "the Python part of a recipe; other steps are refused, skipped with `--images=skip`, or run on "
    "this machine with `--unsafe-run-commands`; `ENTRYPOINT` and `USER` do nothing",
    "TaskGetInfo": "containers that run, and the last 1,000 that ended since the server started",
    "TokenInfoGet": "on a Unix socket any token is taken, on a port the one that `modal-local env` prints",
    "VolumeCommit": "makes a difference with `--volumes=strict` only",
    "VolumeReload": "makes a difference with `--volumes=strict` only",
    "WebhookTokenListForEnvironment": "a token is good in every environment",
}
HEAD = """# What Local Modal speaks

Written by `make coverage-table` from the descriptors of the Modal SDK {version}, the answers of a server, and the
requests that it counted while the tests ran; a test fails when it is no longer true. Beyond the limits below, the top
of [lib.rs](src/lib.rs) tells where Local Modal differs from Modal.

## Features of the SDK

What is refused is refused with its name, when it is deployed or used; what is ignored is accepted and makes no
difference. `tests/python/test_local_modal_features.py` proves each row. A parameter is the same for `App.function`,
`App.cls` and `App.server`, if they have it.

{features}{rpcs}

Of {total} RPCs, {spoken} are spoken. The others answer `UNIMPLEMENTED` with their name. Of tests, `apps` is
`tests/python/test_local_modal_apps.py`, and `functions_tick` is `tests/python/test_functions_tick.py`.

"""
RPCS = "## RPCs"


async def _is_spoken(channel: Channel, method: MethodDescriptor) -> bool:
    """Whether an empty request is answered with anything but UNIMPLEMENTED."""
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
        # It waits for something: somebody is there.
        return True
    return True


async def _ask_all(socket: str) -> set[str]:
    channel = Channel(path=socket)
    try:
        answers = await asyncio.gather(*(_is_spoken(channel, method) for method in METHODS.values()))
    finally:
        channel.close()
    return {name for name, spoken in zip(METHODS, answers, strict=True) if spoken}


def spoken_by(server: LocalModal) -> set[str]:
    """The names of the RPCs that a server speaks."""
    return asyncio.run(_ask_all(server.url.removeprefix("unix://")))


def noun(rpc: str) -> str:
    """What an RPC is about: its first word, mostly."""
    first = re.match(r"[A-Z]+[a-z]*|[A-Z][a-z]*", rpc)
    assert first, rpc
    return NOUNS.get(first[0], first[0])


def read_table() -> dict[str, tuple[str, str]]:
    """What the checked-in table says of each RPC: how far it is spoken, and its tests."""
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


def render(spoken: set[str], tests: dict[str, str], version: str) -> str:
    """The whole document."""
    features = sdk_features.render()
    text = HEAD.format(version=version, features=features, rpcs=RPCS, total=len(METHODS), spoken=len(spoken))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for rpc in sorted(METHODS):
        groups[noun(rpc)].append(rpc)
    for name, rpcs in sorted(groups.items()):
        text += f"### {name}\n\n| RPC | state | tests |\n|---|---|---|\n"
        for rpc in rpcs:
            state = (f"partly: {PARTLY[rpc]}" if rpc in PARTLY else SPOKEN) if rpc in spoken else UNIMPLEMENTED
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
        spoken = spoken_by(server)
    finally:
        server.close()
    TABLE.write_text(render(spoken, tests, modal.__version__))


if __name__ == "__main__":
    main()
