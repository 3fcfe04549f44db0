"""Runs a container: sets up the files that it sees, and runs the SDK's entry point.

`runner.py run SPEC` becomes the container that SPEC (a JSON file) describes. `runner.py serve SPEC` is a fork server.
It imports what such a container would import, then reads paths of specs from its standard input, one per line, and
forks a container for each. It reports their starts and ends on its standard output, one JSON object per line.

The fields of a spec:

- "tree": folder with the container's own files
- "volumes": {path in the container: {"folder", "read_only"}}
- "directory": the working folder, or null for its home
- "root": an empty folder
- "preload": modules to import before forks
- "web_server": whether its function listens on a port
- "skipped": the steps of its image that were skipped
- "private": {path of which each container has its own: folders with what the image adds there}
- "folder": the container's own folder
- "shown": paths of the server that stay visible
- "variables": all environment variables
- "stdout", "stderr": where to print

A container that is not forked ignores the last three: it is started with its variables and output streams.

Uses only the standard library. None of this module stays visible to the container's code.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


def _own(*names: str) -> Iterator[Any]:
    """Yield the modules beside this script, without leaving them in `sys.modules`: containers may have modules of the
    same names.

    The folder is not on the path if the image sets PYTHONSAFEPATH, and may be invisible once the files of the container
    are in place.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, folder)
    for name in names:
        yield importlib.import_module(name)
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != folder]


filesystem, interruption, sdk_patches = _own("filesystem", "interruption", "sdk_patches")
interrupted = interruption.Interruption()

ENTRY_POINT = "modal._container_entrypoint"

PR_SET_CHILD_SUBREAPER = 36

Spec = dict[str, Any]
Files = list[io.IOBase]


def main() -> None:
    mode, path = sys.argv[1:]
    if mode == "run":
        with _silent_if_stopped(path):
            run(*begin(path))
        return
    server, missing = begin(path)
    path, inherited = serve(server)
    # Only forked containers get here.
    with _silent_if_stopped(path):
        run(_become(path, server), missing)
    end(inherited)


def begin(path: str) -> tuple[Spec, Any]:
    """Read the spec at a path and enter its files. Returns the spec, and the module that completes errors if steps of
    the image were skipped."""
    spec = _read(path)
    [missing] = _own("missing") if spec["skipped"] else [None]
    filesystem.enter(spec)
    interrupted.install()
    return spec, missing


def run(spec: Spec, missing: Any) -> None:
    """Run the SDK's entry point, as `python -m` would; `missing` completes errors if the image has skipped steps."""
    sdk_patches.apply(interrupted)
    if spec["web_server"]:
        _find_servers_on_loopback()
    if missing:
        missing.name_skipped_steps(spec["skipped"])
    sys.argv = [ENTRY_POINT]
    sys.modules.pop(ENTRY_POINT, None)
    try:
        runpy.run_module(ENTRY_POINT, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        # The SDK was interrupted after the end of the function. While the function runs, it handles the interruption.
        pass
    finally:
        # A later interruption has nothing to end, and would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def end(inherited: Files) -> None:
    """End a forked process as the interpreter does, but without freeing its memory: to free what it shares with its
    server would first copy all of that."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in [*inherited, *_open_files()]:
        # It may be closed, or fail in its own way, which the interpreter would not report either.
        with contextlib.suppress(Exception):
            file.flush()
    os._exit(0)


def _open_files() -> Files:
    """Return the files that the garbage collector knows, without those from before `gc.freeze`."""
    found = gc.get_objects()
    # There are few different types, and `issubclass` is slow for abstract classes.
    types = {kind for kind in set(map(type, found)) if issubclass(kind, io.IOBase)}
    return [each for each in found if type(each) in types]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection while little garbage is made: a collection visits all objects."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _freeze() -> Files:
    """Exempt all objects that exist now from garbage collection: containers share them, and a collection would write to
    them, and so copy them. Returns the open files, also those that an imported module has frozen already."""
    with _uncollected():
        gc.unfreeze()
        files = _open_files()
        gc.freeze()
    return files


def _find_servers_on_loopback() -> None:
    """Make the SDK connect to a function's server at 127.0.0.1. By default it uses the address of eth0, which not every
    machine has, and at which only a server that is open to the whole network can be reached."""
    asgi = importlib.import_module("modal._runtime.asgi")
    asgi.get_ip_address = lambda _: "127.0.0.1"  # type: ignore[attr-defined]


def serve(spec: Spec) -> tuple[str, Files]:
    """Import modules, then fork for each line of the standard input. Never returns in the server. In each container,
    returns the path of the container's spec, and the files that the imported modules have opened."""
    requests, messages = _reserve_standard_streams()
    send = MessageWriter(messages)
    for module in [ENTRY_POINT, *spec["preload"]]:
        try:
            with _uncollected() if module == ENTRY_POINT else sdk_patches.imported_as_in_container():
                importlib.import_module(module)
        except BaseException as error:
            # A container that is not forked fails with the same error, and reports it.
            send(refused=f"{module} cannot be imported: {error!r}")
            os._exit(0)
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
        send(refused="its module starts threads when it is imported, and a fork would not have them")
        os._exit(0)
    _adopt_orphans()
    containers: set[int] = set()
    others = _children()
    inherited = _freeze()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send(ready=True)
    unread = b""
    while True:
        ready, _, _ = select.select([requests, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            _report_ended(send, containers, others)
        if requests not in ready:
            continue
        received = os.read(requests, 65536)
        if not received:
            os._exit(0)
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            child = os.fork()
            if child == 0:
                for descriptor in (reader, writer, requests, messages):
                    os.close(descriptor)
                return line.decode(), inherited
            containers.add(child)
            send(started=child, spec=line.decode())


class MessageWriter:
    """Sends messages to the process that runs this server."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, **message: object) -> None:
        os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def _reserve_standard_streams() -> tuple[int, int]:
    """Move the standard input and output to other descriptors: imported modules may read and print."""
    requests, messages = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, messages


def _report_ended(send: MessageWriter, containers: set[int], others: set[int]) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        if child in containers:
            containers.remove(child)
            _kill_orphans(containers | others)
            send(ended=child, status=status)


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end, like the first process of a container."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_orphans(others: set[int]) -> None:
    """Kill the processes that an ended container left: they are children of this process now."""
    while orphans := _children() - others:
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)
        for orphan in orphans:
            os.waitpid(orphan, 0)


def _children() -> set[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return set(map(int, file.read().split()))
    except OSError:
        # The system has no such file.
        return set()


def _become(path: str, server: Spec) -> Spec:
    """Turn the forked process into the container of the spec at a path. Returns the spec."""
    spec = _read(path)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    _adopt_orphans()
    for descriptor, pipe in (1, spec["stdout"]), (2, spec["stderr"]):
        opened = os.open(pipe, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    for name in (filesystem.VOLUMES_VARIABLE, "PYTHONPATH"):
        if name in os.environ:
            spec["variables"][name] = os.environ[name]
    os.environ.clear()
    os.environ.update(spec["variables"])
    _forget_server()
    filesystem.renew(spec, server)
    return spec


def _forget_server() -> None:
    """Reset what imported modules have chosen once for their process. Python itself reseeds `random`."""
    if tempfile := sys.modules.get("tempfile"):
        tempfile.tempdir = None  # type: ignore[attr-defined]
    if multiprocessing := sys.modules.get("multiprocessing.process"):
        process = multiprocessing.current_process()
        process.authkey = os.urandom(32)
        process._config.pop("tempdir", None)
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()


@contextlib.contextmanager
def _silent_if_stopped(spec: str) -> Iterator[None]:
    """End silently if the container was stopped while it started: its folder, in which the spec is, is removed then."""
    try:
        yield
    except FileNotFoundError:
        if os.path.exists(os.path.join(os.path.dirname(spec), "arguments")):
            raise
        os._exit(0)


def _read(path: str) -> Spec:
    with open(path) as file:
        spec: Spec = json.load(file)
    # It has the values of Secrets, which must not stay on the disk while the container runs.
    os.unlink(path)
    return spec


main()
