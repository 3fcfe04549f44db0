"""What every task asks of the Execution API, answered by Airflow's own functions without a web server's layers.

They take more than half of the time that such an answer takes. The functions are those of the pinned version.
"""

from __future__ import annotations

import contextvars
import json
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute
    from sqlalchemy.orm import Session

PATH = re.compile(r"/task-instances/([0-9a-f-]{36})(/[a-z]+)")
Operation = Callable[[UUID, Any, "Session", Any], object]
"""Takes the id of a task instance, the body of the request, a session and the DAGs."""


def answer(app: FastAPI, request: httpx.Request) -> httpx.Response | None:
    """The answer of `app`, or None if it has to be asked itself: for what is not known here, or goes wrong.

    A request that ends with None has changed nothing, or is one that the application takes for a repetition.
    """
    found = PATH.fullmatch(request.url.path)
    shortcut = _shortcuts().get((request.method, found[2])) if found else None
    if found is None or shortcut is None:
        return None
    # Airflow marks the log lines of a request in the context that it is served in.
    return contextvars.copy_context().run(_answer, *shortcut, UUID(found[1]), app, request)


def _answer(
    route: APIRoute, operation: Operation, ti_id: UUID, app: FastAPI, request: httpx.Request
) -> httpx.Response | None:
    from airflow.utils.session import create_session
    from fastapi import HTTPException, Response
    from pydantic import BaseModel

    try:
        body, errors = route.body_field.validate(json.loads(request.read()))  # type: ignore[union-attr]
        if errors:
            return None
        with create_session(scoped=False) as session:
            result = operation(ti_id, body, session, app.state.dag_bag)
    except HTTPException as refused:
        return httpx.Response(refused.status_code, json={"detail": refused.detail}, request=request)
    except Exception:
        # The application knows how to tell of it.
        return None
    status = route.status_code or 200
    if isinstance(result, Response):
        return httpx.Response(result.status_code, content=bytes(result.body), request=request)
    if isinstance(result, BaseModel):
        headers = {"content-type": "application/json"}
        content = result.model_dump_json(exclude_unset=route.response_model_exclude_unset, by_alias=True)
        return httpx.Response(status, content=content, headers=headers, request=request)
    if result is None:
        return httpx.Response(status, request=request)
    return httpx.Response(status, json=result, request=request)


@cache
def _shortcuts() -> dict[tuple[str, str], tuple[APIRoute, Operation]]:
    """{(method, end of the path): its route, what carries it out}."""
    from airflow.api_fastapi.execution_api.datamodels.token import TIClaims, TIToken
    from airflow.api_fastapi.execution_api.routes import task_instances
    from fastapi import Response
    from fastapi.routing import APIRoute

    def run(ti_id: UUID, body: Any, session: Session, dag_bag: Any) -> object:
        token = TIToken(id=ti_id, claims=TIClaims(scope="execution"))
        return task_instances.ti_run(ti_id, body, Response(), session, dag_bag, services=None, token=token)

    operations: dict[Any, Operation] = {
        task_instances.ti_run: run,
        task_instances.ti_put_rtif: lambda ti_id, body, session, _: task_instances.ti_put_rtif(ti_id, body, session),
        task_instances.ti_heartbeat: lambda ti_id, body, session, _: task_instances.ti_heartbeat(ti_id, body, session),
        task_instances.ti_update_state: task_instances.ti_update_state,
    }
    routes = [route for route in task_instances.ti_id_router.routes if isinstance(route, APIRoute)]
    return {
        (method, route.path.removeprefix("/{task_instance_id}")): (route, operations[route.endpoint])
        for route in routes
        if route.endpoint in operations
        for method in route.methods
    }
