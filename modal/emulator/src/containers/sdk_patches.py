"""Changes to the SDK in a container. They depend on private parts of one version; any other version runs unchanged.

Uses only the standard library and the SDK. None of this module stays visible to the container's code.
"""

import asyncio
import collections
import contextlib
import ctypes
import functools
import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

SDK_VERSION = "1.6.4"
WSGI_MESSAGES = 64
"""How many messages a WSGI application may be ahead."""
PASSES = 100
"""Passes of an empty loop: after each, the interpreter raises pending exceptions from other threads."""
WAIT_SECONDS = 1.0
"""How long a thread waits at a time: an exception from another thread is raised in between."""


@functools.cache
def apply(interrupted: Any) -> None:
    """Import and change the SDK; `interrupted` is the `Interruption` of this process."""
    if importlib.import_module("modal").__version__ == SDK_VERSION:
        _start_silently(interrupted)
        _close_silently()
        _cancel_threads_alone()
        _gather_yielded()
        _gather_wsgi_messages()


@contextlib.contextmanager
def imported_as_in_container() -> Iterator[None]:
    """Make `modal.is_local()` false while modules are imported for containers that do not exist yet.

    A module may ask when it is imported, and its containers would inherit the wrong answer.
    """
    if importlib.import_module("modal").__version__ != SDK_VERSION:
        yield
        return
    manager: Any = importlib.import_module("modal._runtime.task_lifecycle_manager")._TaskLifecycleManager
    manager._singleton = object()
    try:
        yield
    finally:
        manager._singleton = None


def _start_silently(interrupted: Any) -> None:
    """Re-raise an interruption during the start. The SDK would report the end of its own coroutines as a failure."""
    manager: Any = importlib.import_module("modal._runtime.task_lifecycle_manager")
    print_exception = manager.print_exception

    def print_failure(kind: type[BaseException], *more: Any) -> None:
        if interrupted.occurred and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            raise KeyboardInterrupt
        print_exception(kind, *more)

    manager.print_exception = print_failure


def _close_silently() -> None:
    """Suppress log records about requests that the end of the container interrupted."""
    broken_off = "exception=ClientClosed(", "Synchronizer thread unexpectedly died.\nCause: <class 'NoneType'>"
    for name in ("asyncio", "synchronicity.synchronizer"):
        logging.getLogger(name).addFilter(lambda record: not any(text in str(record.msg) for text in broken_off))


def _cancel_threads_alone() -> None:
    """Cancel an input that runs in a thread by an exception in that thread. The SDK would interrupt the process, so
    that the inputs in its other threads would run again elsewhere."""
    context: Any = importlib.import_module("modal._runtime.container_io_manager").IOContext
    call_function, call_generator = context.call_function_sync, context.call_generator_sync
    set_callback = context.set_cancel_callback

    def call_function_sync(self: Any) -> Any:
        with _silent_end(self), _Interruptible(self):
            return call_function(self)

    def call_generator_sync(self: Any) -> Iterator[Any]:
        with _silent_end(self), _Interruptible(self):
            yield from call_generator(self)

    def set_cancel_callback(self: Any, callback: Callable[[], None]) -> None:
        interrupts_process = getattr(callback, "__name__", "") == "cancel_callback_sync"
        set_callback(self, functools.partial(_Interruptible.interrupt, self) if interrupts_process else callback)

    context.call_function_sync, context.call_generator_sync = call_function_sync, call_generator_sync
    context.set_cancel_callback = set_cancel_callback


@contextlib.contextmanager
def _silent_end(context: Any) -> Iterator[None]:
    """Do not print the failure of a thread that the end of the container causes: its input runs again elsewhere."""
    try:
        yield
    except Exception:
        if context._client.is_closed() and threading.current_thread() is not threading.main_thread():
            # The error cannot be reported any more, and the process does not wait for this thread.
            threading.Event().wait()
        raise


class _Interruptible:
    """The time in which an input's own code runs in a thread, which can be interrupted."""

    _lock = threading.Lock()
    _threads: dict[int, int] = {}  # noqa: RUF012
    """Threads by the ids of the contexts of their inputs."""
    _interrupted: set[int] = set()  # noqa: RUF012
    """The ids of those contexts in whose threads a cancellation was raised, or will be."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        with self._lock:
            self._threads[id(self._context)] = threading.get_ident()
            cancelled = self._context._cancel_issued
        if cancelled:
            # The cancellation came while the input waited for a thread.
            raise _cancellation()()

    def __exit__(self, *_: object) -> None:
        """Raise a pending cancellation now, so that it does not reach the thread's next input. (If it were withdrawn,
        the interpreter would search for it forever.)"""
        while True:
            try:
                with self._lock:
                    self._threads.pop(id(self._context), None)
                    is_interrupted = id(self._context) in self._interrupted
                    self._interrupted.discard(id(self._context))
                if is_interrupted:
                    # If it has not been raised yet, it is at the end of a pass.
                    for _pass in range(PASSES):
                        pass
                return
            except _cancellation():
                continue

    @classmethod
    def interrupt(cls, context: Any) -> None:
        """Raise a cancellation in the thread that runs an input, as soon as that runs Python code."""
        with cls._lock:
            if thread := cls._threads.get(id(context)):
                cls._interrupted.add(id(context))
                _raise_in(thread, _cancellation())


def _cancellation() -> type[BaseException]:
    cancellation: type[BaseException] = importlib.import_module("modal.exception").InputCancellation
    return cancellation


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _gather_yielded() -> None:
    """Pass the values of a generator to the SDK's thread without waiting for that thread each time. Values that arrive
    during a request go into the next one."""

    def create(size: int) -> _Gathered:
        return _Gathered(size)

    async def create_in_loop(size: int) -> _Gathered:
        return _Gathered(size)

    def put(queue: _Gathered, value: Any) -> None:
        queue.put_from_thread(value)

    async def put_from_loop(queue: _Gathered, value: Any) -> None:
        await queue.put_from_loop(value)

    create.aio, put.aio = create_in_loop, put_from_loop  # type: ignore[attr-defined]
    manager: Any = importlib.import_module("modal._runtime.container_io_manager").ContainerIOManager
    manager._queue_create, manager._queue_put = staticmethod(create), staticmethod(put)


def _gather_wsgi_messages() -> None:
    """Pass the messages of a WSGI application from its thread to the event loop in the same way."""
    responder: Any = importlib.import_module("modal._vendor.a2wsgi_wsgi").WSGIResponder
    make, run, pass_on = responder.__init__, responder.wsgi, responder.sender

    def __init__(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        self.send_queue = _Gathered(WSGI_MESSAGES)

    def wsgi(self: Any, *arguments: Any) -> None:
        try:
            run(self, *arguments)
        except BaseException:
            # The SDK stops sending at once, but the messages from before the failure must arrive.
            self.send_queue.flush_from_thread()
            raise

    async def sender(self: Any, send: Any) -> None:
        try:
            await pass_on(self, send)
        finally:
            self.send_queue.close()

    responder.__init__, responder.wsgi, responder.sender = __init__, wsgi, sender
    responder.send = lambda self, message: self.send_queue.put_from_thread(message)


class _Gathered:
    """A queue from one thread, or from another event loop, to one reader in an event loop. It has the methods of
    `asyncio.Queue` that the SDK calls in that loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: collections.deque[Any] = collections.deque()
        self._closed = False
        self._reader_waits = False
        self._reader: asyncio.AbstractEventLoop | None = None
        self._filled = asyncio.Event()
        self._writer_waits = False
        self._room = threading.Event()

    def put_from_thread(self, value: Any) -> None:
        """Add a value, when there is room."""
        while self._is_longer_than(self._size - 1):
            self._wait_for_room()
        self._add(value)

    async def put_from_loop(self, value: Any) -> None:
        """Add a value, when there is room, from an event loop. Other tasks of the loop get their turn."""
        while self._is_longer_than(self._size - 1):
            await asyncio.get_running_loop().run_in_executor(None, self._wait_for_room)
        self._add(value)
        await asyncio.sleep(0)

    def flush_from_thread(self) -> None:
        """Wait until the reader has processed all values."""
        while not self._closed and not self._is_done():
            self._room.clear()
            if not self._is_done():
                self._room.wait(WAIT_SECONDS)

    def close(self) -> None:
        """End the queue: nobody reads any more, and writers do not wait."""
        self._closed = True
        self._values.clear()
        self._room.set()

    async def get(self) -> Any:
        """Take the first value, when there is one."""
        while not self._values:
            self._reader = asyncio.get_running_loop()
            self._filled.clear()
            self._reader_waits = True
            # A value may have been added just before `_reader_waits` was set.
            if not self._values:
                self._room.set()
                await self._filled.wait()
        return self.get_nowait()

    def get_nowait(self) -> Any:
        """Take the first value.

        Raises:
            asyncio.QueueEmpty: There is none.
        """
        if not self._values:
            raise asyncio.QueueEmpty
        value = self._values.popleft()
        if self._writer_waits and len(self._values) <= self._size // 2:
            self._writer_waits = False
            self._room.set()
        return value

    async def put(self, value: Any) -> None:
        """Add a value from the reader's own event loop, which must not wait for itself."""
        self._add(value)

    async def join(self) -> None:
        """Do nothing: the SDK waits for the reader after it."""

    def task_done(self) -> None:
        """Do nothing."""

    def _is_longer_than(self, limit: int) -> bool:
        return not self._closed and len(self._values) > limit

    def _is_done(self) -> bool:
        return self._reader_waits and not self._values

    def _add(self, value: Any) -> None:
        if self._closed:
            return
        self._values.append(value)
        if self._reader_waits and self._reader:
            self._reader_waits = False
            self._reader.call_soon_threadsafe(self._filled.set)

    def _wait_for_room(self) -> None:
        self._room.clear()
        self._writer_waits = True
        if len(self._values) > self._size // 2:
            self._room.wait(WAIT_SECONDS)
