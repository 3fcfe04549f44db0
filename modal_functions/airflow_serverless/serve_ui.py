"""Runs the UI of an environment for as long as somebody looks: `python -m airflow_serverless.serve_ui`.

Settings come from AIRFLOW_SERVERLESS_SETTINGS, the server and the token from the SDK's own variables. Progress goes to
standard error. Standard output gets two lines of JSON: {"app_id": …} once Modal has the app, and {"url": …} once
Airflow answers there; the address has the token in it. The app ends when standard input does, or at SIGTERM or SIGINT;
if this process dies, Modal misses its heartbeats and ends the app by itself. A failure is one line and status 1.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from types import FrameType

import modal
import modal.exception

from airflow_serverless.app import create_ui_app
from airflow_serverless.config import SETTINGS_VARIABLE, Settings, SettingsError
from airflow_serverless.ui.access import PARAMETER, cookie

START_SECONDS = 300.0
"""In which Airflow has to answer: a container, the import of Airflow, and whatever is in the way."""
ANSWER_SECONDS = 170.0
"""Of one request; Modal keeps it until the container is there, or redirects it to where it may wait on."""
TRIES = 3
PAUSE_SECONDS = 1.0


class NotServed(Exception):
    """The page does not answer as it should."""


def main() -> int:
    """Serve the UI until told to end, and return the exit status."""
    _end_when_told()
    try:
        settings = Settings.from_environment()
        _serve(settings)
    except KeyboardInterrupt:
        pass
    except (SettingsError, NotServed, modal.exception.Error, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(reason, file=sys.stderr)
        return 1
    print("The UI has ended", file=sys.stderr)
    return 0


def _serve(settings: Settings) -> None:
    token = secrets.token_urlsafe(32)
    print(f"Creating {settings.ui_app_name} on Modal", file=sys.stderr, flush=True)
    app, function = create_ui_app(settings, os.environ[SETTINGS_VARIABLE], token)
    with app.run():
        print(json.dumps({"app_id": app.app_id}), flush=True)
        url = function.get_web_url()
        if not url:
            raise NotServed("Modal gave it no address")
        print("Airflow starts", file=sys.stderr, flush=True)
        print(f"Airflow {_version(url, token)} answers", file=sys.stderr, flush=True)
        print(json.dumps({"url": f"{url.rstrip('/')}/?{PARAMETER}={token}"}), flush=True)
        threading.Event().wait()


def _version(url: str, token: str) -> str:
    """What Airflow says once it answers; raises NotServed if it does not."""
    headers = {"Cookie": "=".join(cookie(token))}
    request = urllib.request.Request(f"{url.rstrip('/')}/api/v2/version", headers=headers)
    until, failures = time.monotonic() + START_SECONDS, 0
    while True:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return str(json.load(answer)["version"])
        except urllib.error.HTTPError as error:
            failures += 1
            reason = f"{error.code} {error.read(500).decode(errors='replace')}"
        except (OSError, HTTPException, ValueError, KeyError) as error:
            failures += 1
            reason = f"{type(error).__name__}: {error}"
        if failures >= TRIES or time.monotonic() > until:
            raise NotServed(f"Airflow does not answer: {reason}")
        time.sleep(PAUSE_SECONDS)


def _end_when_told() -> None:
    """The end of standard input is a signal like the others: whoever started this has gone away."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        # Told once is told: what follows must not disturb the end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1 << 12):
            pass
        signal.pthread_kill(main_thread, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
