"""Asks the Execution API in this process and prints what it answers and what came of it.

By shortcuts, by the API's own `layers`, or by the `stock` API, which derives the routes of all its versions.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy import select

from airflow_serverless.execution_api import in_process, shortcuts

UNKNOWN = "00000000-0000-7000-8000-000000000000"
WORKER = {"hostname": "here", "unixname": "me", "pid": 1}
AT = "2026-01-01T00:00:00Z"
RUNS = {"state": "running", **WORKER, "start_date": AT}
REQUESTS: list[tuple[str, str, Any]] = [
    ("PUT", "heartbeat", {"hostname": "here", "pid": 1}),
    ("PATCH", "run", {**RUNS, "pid": "many"}),
    ("PATCH", "run", RUNS),
    ("PATCH", "run", RUNS),
    ("PATCH", "run", {**RUNS, "pid": 2}),
    ("PUT", "heartbeat", {"hostname": "here", "pid": 1}),
    ("PUT", "heartbeat", {"hostname": "there", "pid": 1}),
    ("PUT", "rtif", {"bash_command": "true"}),
    ("PUT", "rtif", ["no object"]),
    ("PATCH", "state", {"state": "success"}),
    ("PATCH", "state", {"state": "success", "end_date": AT, "task_outlets": [], "outlet_events": []}),
    ("PATCH", "state", {"state": "success", "end_date": AT, "task_outlets": [], "outlet_events": []}),
    ("PATCH", "state", {"state": "failed", "end_date": AT}),
]
# Beyond what shortcuts answer.
OTHERS: list[tuple[str, str, Any]] = [
    ("GET", "/variables/color", None),
    ("PUT", "/variables/color", {"value": "red", "description": "of the house"}),
    ("PUT", "/variables/color", {"value": 7}),
    ("GET", "/variables/color", None),
    ("GET", "/connections/none", None),
    ("POST", "/dag-runs/asks/second", {"logical_date": AT}),
    ("POST", "/dag-runs/asks/second", {"logical_date": AT}),
    ("POST", "/dag-runs/asks/third", {"logical_date": "yesterday"}),
    ("GET", "/dag-runs/asks/second/state", None),
    ("GET", "/dag-runs/count?dag_id=asks", None),
    ("POST", "/xcoms/asks/second/asks/key", {"a": [1, None]}),
    ("GET", "/xcoms/asks/second/asks/key", None),
    ("GET", "/xcoms/asks/second/asks/none", None),
    ("HEAD", "/xcoms/asks/second/asks/key", None),
    ("DELETE", "/xcoms/asks/second/asks/key", None),
    ("GET", "/task-instances/count?dag_id=asks", None),
    ("GET", "/assets/by-name?name=none", None),
    ("GET", "/no-such-route", None),
]


def main(how: str) -> None:
    from airflow.models import TaskInstance
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    original, quick = shortcuts.answer, []

    if how == "stock":
        in_process._keep_newest_version_only = lambda: None

    def answer(app: FastAPI, request: httpx.Request) -> httpx.Response | None:
        quick.append(original(app, request) if how == "shortcuts" else None)
        return quick[-1]

    shortcuts.answer = answer
    with create_session() as session:
        ti = session.scalars(select(TaskInstance)).one()
        ti.state = "queued"
        ti_id = str(ti.id)
    answers, others = [], []
    with httpx.Client(transport=in_process.transport(), base_url=in_process.BASE_URL) as client:
        headers = {"airflow-api-version": in_process.newest_version()}
        for target in (UNKNOWN, ti_id):
            for method, operation, body in REQUESTS:
                path = f"/task-instances/{target}/{operation}"
                told = client.request(method, path, json=body, headers=headers)
                answers.append([told.status_code, told.json() if told.content else None])
        for method, path, body in OTHERS:
            told = client.request(method, path, json=body, headers=headers)
            others.append([path, told.status_code, told.text])
    with create_session() as session:
        ti = session.scalars(select(TaskInstance).where(TaskInstance.id == UUID(ti_id))).one()
        fields = session.scalars(select(RenderedTaskInstanceFields.rendered_fields)).all()
        effects = [ti.state, ti.hostname, ti.pid, str(ti.start_date), str(ti.end_date), ti.duration, fields]
    known = {"answers": answers, "others": others, "effects": effects, "quick": sum(one is not None for one in quick)}
    print("RESULT", json.dumps(known))


if __name__ == "__main__":
    main(sys.argv[1])
