"""Answers that go on: events, what containers print, and the UI; and whether the daemon says that it cannot work.

Who follows gets each event once, also when the connection breaks, and a sign of life when there is none. The messages
are what the API's document promises. One daemon with one environment serves all tests.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from daemon import Daemon, UnixConnection
from local_modal import wait_until

# A comment, as a message.
HEARTBEAT = {"": "heartbeat"}
# Four minutes.
MOST_HEARTBEATS = 16
DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def NAME():
    @task
    def nothing(): ...
    nothing()
NAME()
"""
GONE_LIMIT = 30.0


class Stream:
    """An answer of server-sent events, read message by message."""

    def __init__(self, daemon: Daemon, path: str, method: str = "GET", **headers: str) -> None:
        self.connection = UnixConnection(daemon.socket)
        self.connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()

    def next(self, *, with_heartbeats: bool = False) -> dict[str, str] | None:
        """The next message, with its fields; none at the end."""
        message: dict[str, str] = {}
        heartbeats = 0
        while line := self.answer.readline().decode():
            name, colon, value = line.rstrip("\n").partition(":")
            if name or colon:
                assert name not in message, f"{name} twice in a message"
                message[name] = value.removeprefix(" ")
            elif message == HEARTBEAT and not with_heartbeats:
                message, heartbeats = {}, heartbeats + 1
                assert heartbeats < MOST_HEARTBEATS, "nothing comes any more"
            else:
                return message
        assert not message, f"the stream has broken off in {message}"
        return None

    def events(self, count: int) -> list[dict[str, Any]]:
        """The events in that many messages."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            message = self.next()
            assert message is not None, f"the stream has ended after {len(found)} of {count} events"
            found.append(event_of(message))
        return found

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def event_of(message: dict[str, str]) -> dict[str, Any]:
    """The event in a message of the stream of events, which tells its id and type outside of it, too."""
    event: dict[str, Any] = json.loads(message["data"])
    assert message == {"id": str(event["id"]), "event": event["type"], "data": message["data"]}
    return event


@pytest.fixture(scope="module")
def unprepared() -> Iterator[Daemon]:
    running = Daemon()
    yield running
    running.close()


@pytest.fixture(scope="module")
def quiet(unprepared: Daemon) -> Iterator[Stream]:
    """Followed all the time: the events of an environment to which nothing happens, while others have many."""
    stream = Stream(unprepared, "/v1/events?environment=quiet")
    yield stream
    stream.close()


@pytest.fixture(scope="module")
def daemon(unprepared: Daemon, quiet: Stream) -> Daemon:
    """A daemon with an environment whose scheduler has printed something."""
    unprepared.create_environment("dev")
    upload(unprepared, "first")
    status, answer = unprepared.ask("POST", "/v1/environments/dev/tick")
    assert status in (200, 204), answer
    return unprepared


@pytest.fixture(scope="module")
def document(unprepared: Daemon) -> Any:
    return unprepared.ask("GET", "/openapi.json")[1]


def upload(daemon: Daemon, name: str) -> None:
    """Uploads a DAG file, which is an event."""
    path = f"/v1/environments/dev/dags/files/{name}.py?mode=create"
    status, answer = daemon.ask("PUT", path, DAG.replace("NAME", name).encode(), "text/x-python")
    assert status == 200, answer


def uploaded(events: list[dict[str, Any]]) -> list[str]:
    assert {event["type"] for event in events} <= {"dag_files.uploaded"}, events
    return [name for event in events for name in event["data"]["filenames"]]


def until_now(daemon: Daemon, query: str = "after=0", **headers: str) -> list[dict[str, Any]]:
    """The events that there are."""
    stream = Stream(daemon, f"/v1/events?follow=false&{query}", **headers)
    events = []
    while message := stream.next():
        events.append(event_of(message))
    stream.close()
    return events


def check(document: Any, schema: str, value: Any) -> None:
    """What the API's document calls so has to be so, and nothing else."""
    described = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    Draft202012Validator(described, format_checker=FormatChecker()).validate(value)
    assert set(value) <= set(document["components"]["schemas"][schema]["properties"]), value


def check_answer(document: Any, path: str, stream: Stream) -> None:
    """The beginning of an answer that is a stream."""
    [described] = [
        answer["200"]
        for method in document["paths"][path].values()
        if "text/event-stream" in (answer := method["responses"])["200"].get("content", {})
    ]
    assert list(described["content"]) == [stream.answer.headers["content-type"]]
    assert described["content"]["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/ServerSentEvent"}
    missing = [name for name in described.get("headers", {}) if name not in stream.answer.headers]
    assert not missing, missing
    # Nothing between us may keep it, or wait for its end.
    assert stream.answer.headers["cache-control"] == "no-cache"
    assert "content-length" not in stream.answer.headers


def test_event_stream_matches_the_openapi_document(daemon: Daemon, document: Any) -> None:
    stream = Stream(daemon, "/v1/events?after=0&follow=false")
    check_answer(document, "/v1/events", stream)
    kinds = set()
    while message := stream.next():
        check(document, "ServerSentEvent", message)
        event = event_of(message)
        check(document, "Event", event)
        kinds.add(event["type"])
    assert {"environment.created", "operation.step", "environment.ready", "dag_files.uploaded"} <= kinds
    stream.close()


def test_event_stream_resumes_after_last_event_id(daemon: Daemon) -> None:
    # More than are read from the registry at once.
    with closing(sqlite3.connect(daemon.home / "data/registry.db", timeout=30)) as registry, registry:
        row = ("dag_files.removed", "many", json.dumps({"filenames": []}), "2026-01-01T00:00:00+00:00")
        insert = "INSERT INTO event (kind, environment, data, created_at) VALUES (?, ?, ?, ?)"
        registry.executemany(insert, [row] * 250)
    events = until_now(daemon)
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids)) and len(ids) > 250, ids
    for place in (0, 1, len(ids) // 2, len(ids) - 150, len(ids) - 2, len(ids) - 1):
        # It goes before what the query asks for: a browser repeats the query when it comes back.
        assert until_now(daemon, Last_Event_ID=str(ids[place])) == events[place + 1 :], place
    of_dev = [event for event in events if event["environment"] == "dev"]
    assert until_now(daemon, "environment=dev", Last_Event_ID=str(of_dev[3]["id"])) == of_dev[4:]

    stream = Stream(daemon, "/v1/events")
    upload(daemon, "a")
    upload(daemon, "b")
    [a] = stream.events(1)
    # What the client has not read yet is lost with the connection.
    stream.close()
    upload(daemon, "c")
    stream = Stream(daemon, "/v1/events?after=0", Last_Event_ID=str(a["id"]))
    missed = stream.events(2)
    upload(daemon, "d")
    [d] = stream.events(1)
    stream.close()
    assert uploaded([a, *missed, d]) == ["a.py", "b.py", "c.py", "d.py"]
    assert until_now(daemon, f"after={ids[-1]}") == [a, *missed, d]


def test_log_stream_matches_the_openapi_document(daemon: Daemon, document: Any) -> None:
    path = "/v1/environments/{environment}/logs/stream"
    status, printed = daemon.ask("GET", "/v1/environments/dev/logs?tail=1000")
    assert status == 200 and printed["lines"], "the scheduler has printed nothing"
    stream = Stream(daemon, path.format(environment="dev") + "?tail=1000")
    check_answer(document, path, stream)
    lines: list[Any] = []
    while len(lines) < len(printed["lines"]):
        message = stream.next()
        assert message and set(message) == {"event", "data"}, message
        check(document, "ServerSentEvent", message)
        assert message["event"] == "line"
        lines.append(json.loads(message["data"]))
        check(document, "ContainerLine", lines[-1])
    assert lines == printed["lines"]
    stream.close()


def test_ui_stream_matches_the_openapi_document(daemon: Daemon, document: Any) -> None:
    path = "/v1/environments/{environment}/ui"
    stream = Stream(daemon, path.format(environment="dev"), "POST")
    check_answer(document, path, stream)
    progress: list[dict[str, str]] = []
    while (message := stream.next()) and message["event"] == "progress":
        check(document, "ServerSentEvent", message)
        progress.append(json.loads(message["data"]))
        check(document, "UiProgress", progress[-1])
    assert message and set(message) == {"event", "data"} and message["event"] == "ready", message
    check(document, "ServerSentEvent", message)
    ready = json.loads(message["data"])
    check(document, "UiReady", ready)
    assert ready["url"].startswith("http://127.0.0.1:"), ready
    assert progress and {told["id"] for told in progress} == {ready["id"]}
    uis = daemon.ask("GET", "/v1/uis")[1]["uis"]
    assert [(ui["id"], ui["environment"], ui["state"]) for ui in uis] == [(ready["id"], "dev", "ready")]
    # It ends with the connection.
    stream.close()
    wait_until(lambda: not daemon.ask("GET", "/v1/uis")[1]["uis"], "the end of the UI", GONE_LIMIT)


def test_event_stream_sends_heartbeats(quiet: Stream) -> None:
    """Again and again while nothing happens, or only to others: here, while the other tests do what they do."""
    assert [quiet.next(with_heartbeats=True) for _ in range(2)] == [HEARTBEAT, HEARTBEAT]


def test_unreadable_registry_is_not_ready(daemon: Daemon, document: Any) -> None:
    """It is damaged for a moment: what the daemon asks for lies on a page that is not there."""
    assert daemon.ask("GET", "/v1/ready") == (200, {"status": "ok"})
    damage = "UPDATE sqlite_schema SET rootpage = ? WHERE name = 'sqlite_sequence'"
    with closing(sqlite3.connect(daemon.home / "data/registry.db", timeout=30, isolation_level=None)) as registry:
        [[page]] = registry.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_sequence'")
        registry.execute("PRAGMA writable_schema = ON")

        def place(root: int) -> None:
            registry.execute(damage, [root])
            # Makes the daemon's connections look at it again.
            [[version]] = registry.execute("PRAGMA schema_version")
            registry.execute(f"PRAGMA schema_version = {version + 1}")

        place(1 << 30)
        try:
            connection = UnixConnection(daemon.socket)
            connection.request("GET", "/v1/ready")
            answer = connection.getresponse()
            problem = json.loads(answer.read())
            connection.close()
        finally:
            place(page)
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), problem
    assert answer.headers["retry-after"].isdecimal()
    check(document, "Problem", problem)
    assert problem["type"] == "urn:airflow-serverless:problem:not-ready" and problem["hint"]
    assert "reading events" in problem["detail"], problem
    # It goes on to serve, and is ready as soon as it can be.
    assert daemon.ask("GET", "/v1/health") == (200, {"status": "ok"})
    assert daemon.ask("GET", "/v1/ready") == (200, {"status": "ok"})


def test_log_stream_ends_with_its_environment(daemon: Daemon) -> None:
    printed = Stream(daemon, "/v1/environments/dev/logs/stream?tail=0")
    events = Stream(daemon, "/v1/events?environment=dev")
    status, answer = daemon.ask("DELETE", "/v1/environments/dev?purge=true")
    assert status == 202, answer
    while (message := printed.next()) is not None:
        assert message["event"] == "line"
    # The events of an environment do not, as another one may have its name.
    while events.events(1)[0]["type"] != "environment.deleted":
        pass
    printed.close()
    events.close()
