"""Airflow's client of the Execution API, corrected where it silently changes names and values.

That of Task SDK 1.3.2 (`airflow/sdk/api/client.py`) puts names into URLs as they are, so that `#` and `?` end a path
and `..` leads out of it, and writes NaN and the infinities as null.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels import _generated as bodies
from airflow.sdk.execution_time import comms

QUOTED = ("store/ti/", "dags/")
"""Paths that the client quotes by itself, but for names of dots alone."""
AMBIGUOUS_XCOM = re.compile(r"xcoms/[^/]+/[^/]+/[^/]+/.*/(?:slice|item/-?\d+)")
"""Where the API would take the end of a key for a part of a mapped task's XComs."""
WITH_VALUES = (
    bodies.AssetStateStorePutBody,
    bodies.TaskStateStorePutBody,
    bodies.TIAwaitingInputStatePayload,
    bodies.TIDeferredStatePayload,
    bodies.TISuccessStatePayload,
    bodies.TriggerDAGRunPayload,
    comms.CreateHITLDetailPayload,
    comms.UpdateHITLDetail,
)


class TaskClient(Client):
    """Takes all names for what they are. What it cannot keep it refuses with a ValueError, which the task sees."""

    def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:  # type: ignore[override]
        """Send a request.

        Raises:
            ValueError: The name cannot be told from an operation of the API.
        """
        path = str(url)
        if method == "POST" and AMBIGUOUS_XCOM.fullmatch(path):
            raise ValueError(f"no XCom can be pulled under a key that ends like {path!r}: push it under another key")
        if path == "variables/keys" and not options.get("params"):
            raise ValueError("no task can use a variable that is called 'keys': give it another name")
        if content := options.get("content"):
            _refuse_not_finite(content)
        answer: httpx.Response = super().request(method, quoted(path), **options)
        return answer


def quoted(path: str) -> str:
    """The path of a URL with all names in it quoted. Raises ValueError for those that the API could not tell apart."""
    segments = path.split("/")
    if not path.startswith(QUOTED):
        segments = [quote(segment, safe="") for segment in segments]
    # Dots need no quotes elsewhere. Alone they would be taken for steps through folders.
    segments = [segment.replace(".", "%2E") if segment in (".", "..") else segment for segment in segments]
    if any("%0A" in segment for segment in segments):
        raise ValueError(f"a name with a line break cannot be used: {path!r}")
    return "/".join(segments)


def write_numbers_as_they_are() -> None:
    """Have bodies say NaN and Infinity, so that they can be refused."""
    for body in WITH_VALUES:
        if body.model_config.get("ser_json_inf_nan") != "constants":
            body.model_config["ser_json_inf_nan"] = "constants"
            body.model_rebuild(force=True)


def _refuse_not_finite(content: str | bytes) -> None:
    text = content.decode() if isinstance(content, bytes) else content
    if "NaN" in text or "Infinity" in text:
        json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} cannot be stored as JSON here: use None, or its text as float() takes it")


write_numbers_as_they_are()
