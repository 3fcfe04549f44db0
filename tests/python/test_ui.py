"""The Airflow UI, as `airflow-serverless ui` opens it: from the command to the browser, and to its end.

Each database has one daemon, one environment and one UI for all tests, the last of which ends it. The pages are looked
at in a Chromium, as those of the API are (see test_api_page.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon import Daemon, UnixConnection
from local_modal import REPOSITORY, wait_until
from postgres import serving
from test_api_page import BROWSER, NO_BROWSER

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def shown():
    @task
    def say():
        print("what the log says")
        return "words of an XCom"

    @task
    def hear(said):
        return {"heard": said}

    hear(say())

shown()
"""
RUNS = "/api/v2/dags/shown/dagRuns"
FIRST = f"{RUNS}/first"
GONE_LIMIT = 30.0
APP = "airflow-serverless-dev-ui"
SERVING = "airflow_serverless.serve_ui"


class Ui:
    """A UI that the command line has opened, and a client that has been let in."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.process = self.command("--json")
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        ready = json.loads(line)
        self.id, self.address = ready["id"], ready["url"]
        self.url, _, self.token = self.address.partition("/?token=")
        self.client = httpx.Client(base_url=self.url, timeout=60, follow_redirects=True)
        assert self.client.get(self.address).url == f"{self.url}/"

    def command(self, *options: str) -> subprocess.Popen[str]:
        command = [REPOSITORY / "target/debug/airflow-serverless", "ui", "--env", "dev", *options]
        return subprocess.Popen(
            command, env=self.daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def get(self, path: str, **more: Any) -> Any:
        answer = self.client.get(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def state(self, run: str) -> str | None:
        answer = self.client.get(f"{RUNS}/{run}")
        state: str | None = answer.json()["state"] if answer.status_code == 200 else None
        return state

    def answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return bool(httpx.get(self.url, timeout=5).status_code)
        return False

    def serving(self) -> set[int]:
        """The SDK's processes that run UIs for this daemon."""
        return {int(process.name) for process in self._processes() if SERVING in (process / "cmdline").read_text()}

    def containers(self) -> list[str]:
        """The containers that know the token."""
        return [process.name for process in self._processes() if self.token in (process / "environ").read_text()]

    def _processes(self) -> Iterator[Path]:
        for process in Path("/proc").glob("[0-9]*"):
            # It may end while it is looked at.
            with contextlib.suppress(OSError):
                if str(self.daemon.home) in (process / "environ").read_text():
                    yield process

    def wait_until_gone(self) -> None:
        """Nothing of it may be left, wherever it was."""
        is_listed = lambda: any(ui["id"] == self.id for ui in self.daemon.ask("GET", "/v1/uis")[1]["uis"])  # noqa: E731
        wait_until(lambda: not is_listed(), "the end of the UI", GONE_LIMIT)
        wait_until(lambda: not self.answers(), "the end of its page", GONE_LIMIT)
        wait_until(lambda: not self.serving() and not self.containers(), "the end of its processes", GONE_LIMIT)
        assert APP not in self.running_apps()

    def running_apps(self) -> list[str]:
        command = [REPOSITORY / "target/debug/modal-local", "status", "--json"]
        command += ["--data-dir", self.daemon.home / "data/modal"]
        status = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=20).stdout)
        return [app["name"] for app in status["apps"]]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def daemon(database: str) -> Iterator[Daemon]:
    """A daemon with an environment in which a run has succeeded."""
    with contextlib.ExitStack() as stack:
        if database == "postgres":
            string = stack.enter_context(serving()).create("airflow")
            running = Daemon()
            stack.callback(running.close)
            running.create_environment("dev", string)
        else:
            # On Volumes as they are on Modal: what others have committed is seen after a reload.
            running = Daemon.with_dev("local_modal: {volumes: strict}")
            stack.callback(running.close)
        base = "/v1/environments/dev/dags"
        status, answer = running.ask("PUT", f"{base}/files/shown.py?mode=create", DAG.encode(), "text/x-python")
        assert status == 200, answer
        trigger(running, "first")
        ended = ("success", "failed")
        wait_until(lambda: running.ask("GET", f"{base}/shown/runs/first")[1]["state"] in ended, "the run", 120.0)
        yield running


def trigger(daemon: Daemon, run: str) -> None:
    status, answer = daemon.ask("POST", "/v1/environments/dev/dags/shown/runs", {"dag_run_id": run})
    assert status == 201, answer


@pytest.fixture(scope="module")
def ui(daemon: Daemon) -> Iterator[Ui]:
    opened = Ui(daemon)
    yield opened
    opened.process.kill()
    opened.process.wait()


@pytest.fixture
def page(ui: Ui) -> Iterator[Any]:
    """A page of a browser that nobody has let in yet."""
    if BROWSER is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        shown = launched.new_context(viewport={"width": 1400, "height": 900}).new_page()
        shown.set_default_timeout(60_000)
        yield shown
        launched.close()


def test_requests_without_the_token_are_refused(ui: Ui, daemon: Daemon) -> None:
    name, value = next(iter(ui.client.cookies.items()))
    cookies = [{}, {name: "wrong"}, {"_token": value}, {name: value[:-1]}]
    for path in ("/", "/api/v2/dags", "/ui/config", "/static/pin_32.png", "/?token=", "/?token=wrong", "/auth/token"):
        for cookie in cookies:
            headers = {"cookie": "; ".join(f"{key}={text}" for key, text in cookie.items())}
            answer = httpx.get(ui.url + path, headers=headers, timeout=60)
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False), (path, cookie)
            assert "airflow-serverless ui" in answer.text
    assert httpx.post(ui.address, json={}, timeout=60).status_code == 401
    # Who has it is let in, sees it no more, and stays on this site.
    for path, place in {"/dags?a=1&": "/dags?a=1", "//example.org/x?": "/example.org/x"}.items():
        answer = httpx.get(f"{ui.url}{path}token={ui.token}", timeout=60)
        assert (answer.status_code, answer.headers["location"]) == (303, place)
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and ui.token not in cookie
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert ui.get("/ui/auth/me")["id"]
    # It is in no log and in no list of processes.
    files = [daemon.log, *(path for path in daemon.home.glob("data/modal/logs/**/*") if path.is_file())]
    assert not [path for path in files if ui.token.encode() in path.read_bytes()]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert ui.token.encode() not in command.read_bytes()


def test_pages_show_dags_xcoms_and_code(ui: Ui, page: Any) -> None:
    elsewhere: list[str] = []
    own = (ui.url, f"blob:{ui.url}", "data:")
    page.on("request", lambda asked: None if asked.url.startswith(own) else elsewhere.append(asked.url))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    assert page.goto(f"{ui.url}/dags").status == 401
    page.goto(ui.address)
    page.wait_for_url(f"{ui.url}/")
    page.goto(f"{ui.url}/dags")
    page.get_by_role("link", name="shown").first.wait_for()
    task = f"{ui.url}/dags/shown/runs/first/tasks/say"
    page.goto(task)
    page.get_by_text("Returned value was: words of an XCom").first.wait_for()
    page.goto(f"{task}/xcom")
    page.get_by_text("words of an XCom").first.wait_for()
    page.goto(f"{ui.url}/dags/shown/code")
    page.get_by_text("def shown").first.wait_for()
    assert (elsewhere, faults) == ([], [])


def test_api_of_the_ui_returns_dags_logs_and_xcoms(ui: Ui) -> None:
    assert [dag["dag_id"] for dag in ui.get("/api/v2/dags")["dags"]] == ["shown"]
    log = ui.get(f"{FIRST}/taskInstances/say/logs/1")["content"]
    assert "what the log says" in [line["event"] for line in log]
    xcom = f"{FIRST}/taskInstances/hear/xcomEntries/return_value"
    assert ui.get(xcom)["value"] == {"heard": "words of an XCom"}
    assert "words of an XCom" in ui.get(xcom, params={"stringify": "true", "deserialize": "true"})["value"]
    assert ui.get("/api/v2/dagSources/shown", headers={"accept": "application/json"})["content"] == DAG
    assert {node["id"] for node in ui.get("/ui/grid/structure/shown")} == {"say", "hear"}
    assert len(ui.get("/ui/structure/structure_data", params={"dag_id": "shown"})["edges"]) == 1
    health = ui.get("/api/v2/monitor/health")
    assert health["metadatabase"]["status"] == health["scheduler"]["status"] == "healthy"
    listed = ui.client.post("/api/v2/dags/~/dagRuns/~/taskInstances/list", json={"dag_ids": ["shown"]})
    assert (listed.status_code, listed.json()["total_entries"]) == (200, 2)


def test_runs_triggered_elsewhere_appear(ui: Ui, daemon: Daemon) -> None:
    assert ui.state("second") is None
    trigger(daemon, "second")
    wait_until(lambda: ui.state("second") == "success", "a run of the command line in the UI", 60.0)
    log = ui.get(f"{RUNS}/second/taskInstances/say/logs/1")["content"]
    assert "what the log says" in [line["event"] for line in log]


def test_concurrent_readers_see_no_errors_during_reloads(ui: Ui, daemon: Daemon) -> None:
    """While the database under them is replaced again and again."""
    stop = threading.Event()
    faults: list[str] = []

    def look() -> None:
        with httpx.Client(base_url=ui.url, cookies=ui.client.cookies, timeout=60) as client:
            while not stop.is_set():
                for path in (RUNS, f"{FIRST}/taskInstances", f"{FIRST}/taskInstances/say/logs/1", "/ui/dags"):
                    answer = client.get(path)
                    if answer.status_code != 200:
                        faults.append(f"{path}: {answer.text}")

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    try:
        for number in range(3):
            trigger(daemon, f"busy{number}")
            wait_until(lambda: ui.state(f"busy{number}") == "success", "a run", 90.0)  # noqa: B023
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
    assert not faults, faults[0]


def test_writes_are_refused_with_sqlite_and_work_with_postgres(ui: Ui, database: str) -> None:
    writes = {
        ("POST", RUNS): {"dag_run_id": "from-the-ui", "logical_date": None},
        ("PATCH", "/api/v2/dags/shown"): {"is_paused": False},
        ("POST", "/api/v2/variables"): {"key": "place", "value": "here"},
        ("DELETE", "/api/v2/variables/place"): None,
    }
    answers = {asked: ui.client.request(*asked, json=body) for asked, body in writes.items()}
    # Another port of this machine is the same site to the cookie, but not to us.
    foreign = ui.client.post(RUNS, json=writes["POST", RUNS], headers={"sec-fetch-site": "same-site"})
    assert (foreign.status_code, "other sites" in foreign.json()["detail"]) == (403, True)
    if database == "postgres":
        assert {answer.status_code // 100 for answer in answers.values()} == {2}, answers
        # Within seconds, although the cron would tick in an hour.
        wait_until(lambda: ui.state("from-the-ui") == "success", "a run that the UI has triggered", 60.0)
        return
    for asked, answer in answers.items():
        assert answer.status_code == 403, asked
        detail = answer.json()["detail"]
        assert "SQLite" in detail and "read-only" in detail and "dags trigger --env dev" in detail
    assert ui.state("from-the-ui") is None


def test_number_of_uis_is_limited(ui: Ui, daemon: Daemon) -> None:
    def listed() -> list[str]:
        return [entry["id"] for entry in daemon.ask("GET", "/v1/uis")[1]["uis"]]

    connections = []
    for _ in range(3):
        connection = UnixConnection(daemon.socket)
        connection.request("POST", "/v1/environments/dev/ui", headers={"Idempotency-Key": "the same"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.readline() == b"event: progress\n"
        connections.append((connection, answer))
    assert len(listed()) == 4
    status, problem = daemon.ask("POST", "/v1/environments/dev/ui")
    assert (status, problem["type"].rpartition(":")[2]) == (429, "too-many-uis")
    status, problem = daemon.ask("POST", "/v1/environments/other/ui")
    assert (status, problem["type"].rpartition(":")[2]) == (404, "environment-not-found")
    for connection, answer in connections:
        answer.close()
        connection.close()
    wait_until(lambda: listed() == [ui.id], "the end of the others", GONE_LIMIT)
    assert ui.state("first") == "success"


def test_killed_ui_process_is_reported_and_cleaned_up(ui: Ui) -> None:
    """Then the command says so, and nothing is left; the other UI goes on."""
    [own] = ui.serving()
    command = ui.command()
    assert command.stderr is not None
    while (line := command.stderr.readline()) != "Airflow starts\n":
        assert line, "the command has ended"
    assert ui.running_apps().count(APP) == 2
    [other] = ui.serving() - {own}
    os.kill(other, signal.SIGKILL)
    _, said = command.communicate(timeout=GONE_LIMIT)
    assert command.returncode == 3 and "SIGKILL" in said, said
    wait_until(lambda: ui.running_apps().count(APP) == 1, "the end of its app", GONE_LIMIT)
    assert ui.state("first") == "success"


def test_ui_ends_with_its_command(ui: Ui, database: str) -> None:
    if database == "sqlite":
        ui.process.send_signal(signal.SIGINT)
        _, said = ui.process.communicate(timeout=GONE_LIMIT)
        assert ui.process.returncode == 0, said
        # When the command has ended, all is over.
        assert ui.daemon.ask("GET", "/v1/uis")[1] == {"uis": [], "total_entries": 0}
    else:
        ui.process.kill()
    ui.wait_until_gone()
