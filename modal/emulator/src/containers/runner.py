"""Becomes a container: sees the files that a container would see, and runs the SDK's entry point.

`runner.py run SPEC` becomes the container that SPEC (a JSON file) describes. `runner.py serve SPEC` imports what such a
container would import, and then forks one container for each path of a spec that it reads, a line each, from its
standard input; it tells on its standard output, one JSON object a line, what became of them.

A spec: {"tree": folder with the container's own files, "volumes": {path in the container: {"folder", "read_only"}},
"directory": where it starts (or null: in its home), "root": an empty folder, "preload": modules to import before
forks, "web_server": whether its function listens on a port, "skipped": the steps of its image that were skipped,
"private": {path of which each container has its own: folders with what the image adds there}, "folder": the container's
own folder, "shown": places of the server that stay in sight, "variables": the whole environment, "stdout" and "stderr":
where to print}. What the last three say, a container that is not forked has already.

Only the standard library is used here, and nothing of it stays visible to the container's code.
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
    """The modules beside this script. Containers import nothing from its folder, and may take the names for their own.

    The folder is not on the path if the image has set PYTHONSAFEPATH, and may be out of sight once the files of the
    container are in place.
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
        with _silent_if_gone(path):
            begun = begin(path)
        run(*begun)
        return
    spec, missing = begin(path)
    # A container returns from here as if it had been started by itself.
    spec, inherited = serve(spec)
    run(spec, missing)
    end(inherited)


def begin(path: str) -> tuple[Spec, Any]:
    """Enter the files of the spec at a path; returns it, and the module that completes errors if steps of the image
    were skipped."""
    spec = _read(path)
    [missing] = _own("missing") if spec["skipped"] else [None]
    filesystem.enter(spec)
    interrupted.listen()
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
    arguments = os.environ["MODAL_CONTAINER_ARGUMENTS_PATH"]
    try:
        runpy.run_module(ENTRY_POINT, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        # The SDK was interrupted when it had ended the function; while that runs, it takes it as the end itself.
        pass
    except FileNotFoundError as error:
        # The container was stopped before it was there, and its folder is going.
        if error.filename != arguments:
            raise
    finally:
        # From here on, an interruption has nothing to end, and would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def end(inherited: Files) -> None:
    """End a forked process as the interpreter does, but leave its memory to the system: to free what it shares with its
    server would first copy all of that."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in [*inherited, *_open_files()]:
        # It may be closed, or fail in its own way, which the interpreter would not tell of either.
        with contextlib.suppress(Exception):
            file.flush()
    os._exit(0)


def _open_files() -> Files:
    """The files that the garbage collector knows, without those from before `gc.freeze`."""
    found = gc.get_objects()
    # Few of the types differ, and abstract classes take long to answer.
    types = {kind for kind in set(map(type, found)) if issubclass(kind, io.IOBase)}
    return [each for each in found if type(each) in types]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage for a while in which little is made: a collection looks at all that is there."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _freeze() -> Files:
    """Exempt from garbage collection what is there: all containers share it, and a collection would write to it, and so
    copy it. Returns the open files, also those that an imported module has frozen already."""
    with _uncollected():
        gc.unfreeze()
        files = _open_files()
        gc.freeze()
    return files


def _find_servers_on_loopback() -> None:
    """Have the SDK look for a function's server at 127.0.0.1. It would ask for the address of eth0, which a machine
    need not have, and at which only a server can be found that the whole network can reach."""
    asgi = importlib.import_module("modal._runtime.asgi")
    asgi.get_ip_address = lambda _: "127.0.0.1"  # type: ignore[attr-defined]


def serve(spec: Spec) -> tuple[Spec, Files]:
    """Import, then fork for each line of the standard input; returns in each container, and never in the server, the
    container's own spec and what files the imported modules have opened."""
    requests, answers = _keep_to_itself()
    tell = Teller(answers)
    for module in [ENTRY_POINT, *spec["preload"]]:
        try:
            with _uncollected() if module == ENTRY_POINT else sdk_patches.imported_as_in_container():
                importlib.import_module(module)
        except BaseException as error:
            # A container that starts in the ordinary way meets the same error, and reports it.
            tell(refused=f"{module} cannot be imported: {error!r}")
            os._exit(0)
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
        tell(refused="its module starts threads when it is imported, and a fork would not have them")
        os._exit(0)
    _adopt_orphans()
    containers: set[int] = set()
    others = _children()
    inherited = _freeze()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell(ready=True)
    unread = b""
    while True:
        ready, _, _ = select.select([requests, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            _report_ended(tell, containers, others)
        if requests not in ready:
            continue
        received = os.read(requests, 65536)
        if not received:
            os._exit(0)
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            child = os.fork()
            if child == 0:
                for descriptor in (reader, writer, requests, answers):
                    os.close(descriptor)
                with _silent_if_gone(line.decode()):
                    own = _read(line.decode())
                    _become(own, spec)
                return own, inherited
            containers.add(child)
            tell(started=child, spec=line.decode())


class Teller:
    """Writes messages to whoever runs this server."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, **message: object) -> None:
        os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def _keep_to_itself() -> tuple[int, int]:
    """Move the standard input and output out of the way of imported modules, which may read and print."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _report_ended(tell: Teller, containers: set[int], others: set[int]) -> None:
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
            tell(ended=child, status=status)


def _adopt_orphans() -> None:
    """Become the parent of processes below this one whose own parents end, as the first process of a container is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_orphans(others: set[int]) -> None:
    """Kill what a container has left: its processes are children of this one when it has ended."""
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
        # The system does not tell.
        return set()


def _become(spec: Spec, server: Spec) -> None:
    """Turn the forked process into the container of a spec."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    _adopt_orphans()
    for descriptor, path in (1, spec["stdout"]), (2, spec["stderr"]):
        opened = os.open(path, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    for name in (filesystem.VOLUMES_VARIABLE, "PYTHONPATH"):
        if name in os.environ:
            spec["variables"][name] = os.environ[name]
    os.environ.clear()
    os.environ.update(spec["variables"])
    _forget_server()
    filesystem.renew(spec, server)


def _forget_server() -> None:
    """Undo what imported modules have chosen once for their process. `random` is seeded anew by Python itself."""
    if tempfile := sys.modules.get("tempfile"):
        tempfile.tempdir = None  # type: ignore[attr-defined]
    if multiprocessing := sys.modules.get("multiprocessing.process"):
        process = multiprocessing.current_process()
        process.authkey = os.urandom(32)
        process._config.pop("tempdir", None)
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()


@contextlib.contextmanager
def _silent_if_gone(spec: str) -> Iterator[None]:
    """End silently if a container was stopped before it was there: the folder with its spec goes then."""
    try:
        yield
    except FileNotFoundError:
        if os.path.exists(os.path.join(os.path.dirname(spec), "arguments")):
            raise
        os._exit(0)


def _read(path: str) -> Spec:
    with open(path) as file:
        spec: Spec = json.load(file)
    # It has the values of Secrets, which are not to be on the disk for as long as the container lives.
    os.unlink(path)
    return spec


main()
