"""Asks the Execution API in this process, with or without shortcuts, and prints what it answers and what came of it."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import select

from airflow_serverless.executor import in_process, shortcuts

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


def main(how: str) -> None:
    from airflow.models import TaskInstance
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    original, quick = shortcuts.answer, []

    def answer(app: FastAPI, request: httpx.Request) -> httpx.Response | None:
        quick.append(None if how == "layers" else original(app, request))
        return quick[-1]

    shortcuts.answer = answer
    with create_session() as session:
        ti = session.scalars(select(TaskInstance)).one()
        ti.state = "queued"
        ti_id = str(ti.id)
    answers = []
    with httpx.Client(transport=in_process.transport(), base_url=in_process.BASE_URL) as client:
        headers = {"airflow-api-version": in_process.newest_version()}
        for target in (UNKNOWN, ti_id):
            for method, operation, body in REQUESTS:
                path = f"/task-instances/{target}/{operation}"
                told = client.request(method, path, json=body, headers=headers)
                answers.append([told.status_code, told.json() if told.content else None])
    with create_session() as session:
        ti = session.scalars(select(TaskInstance)).one()
        fields = session.scalars(select(RenderedTaskInstanceFields.rendered_fields)).all()
        effects = [ti.state, ti.hostname, ti.pid, str(ti.start_date), str(ti.end_date), ti.duration, fields]
    known = {"answers": answers, "effects": effects, "quick": sum(one is not None for one in quick)}
    print("RESULT", json.dumps(known))


if __name__ == "__main__":
    main(sys.argv[1])
