"""Deploys the app of an environment with the Modal SDK: `python -m airflow_serverless.deploy`.

Settings come from AIRFLOW_SERVERLESS_SETTINGS, the server and the token from the SDK's own variables. Progress goes to
standard error, one JSON line {"app_id": …, "app_name": …} to standard output; a failure is one line and status 1.
With `--attached` it ends when standard input does.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading

import modal
import modal.exception

from airflow_serverless.app import create_app
from airflow_serverless.config import SETTINGS_VARIABLE, Settings, SettingsError


def main() -> int:
    """Deploy and return the exit status."""
    if "--attached" in sys.argv[1:]:
        _end_with_standard_input()
    try:
        settings = Settings.from_environment()
        print(f"Deploying {settings.app_name}", file=sys.stderr, flush=True)
        app = create_app(settings, os.environ[SETTINGS_VARIABLE])
        app.deploy(name=settings.app_name)
    except (SettingsError, modal.exception.Error, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"Deployment failed: {reason}", file=sys.stderr)
        return 1
    print(f"Deployed {settings.app_name} as {app.app_id}", file=sys.stderr)
    print(json.dumps({"app_id": app.app_id, "app_name": settings.app_name}), flush=True)
    return 0


def _end_with_standard_input() -> None:
    """Whoever started this may be killed. Its successor deploys anew, and what came late must not replace that."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1 << 12):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    status = main()
    # At its end, the interpreter would look for garbage among all that was imported.
    gc.freeze()
    sys.exit(status)
