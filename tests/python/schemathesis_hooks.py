"""What schemathesis asks about: mostly the environment that the test has made, so that it sees more than 404s.

Data that is meant to be refused is sent as it was generated, but for what would last or do harm. Of the data that is
meant to be taken, three of four requests get the names of what there is. Nothing here leaves an operation out; some are
kept from doing harm to what the others need, or from taking minutes each:

- a creation asks for the environment that exists, as a new one takes 20 seconds to deploy;
- a change asks for the configuration that it has, as another one deploys it anew;
- a backfill gets few dates, as each is a run;
- what is deleted is there for that;
- no DAG is paused, as the stream of the logs of its tasks would not end;
- a UI is asked for in an environment that is not there, as each is a process and a container, and lasts, and so is the
  stream of what containers print, which does not end;
- the stream of events ends with the newest one.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from typing import Any

import schemathesis
from schemathesis import GenerationMode

NAMES: dict[str, Any] = json.loads(os.environ["API_TEST_NAMES"])
CONFIG = json.loads(os.environ["API_TEST_CONFIG"])
# What is removed is there once, beside what the other operations use.
DOOMED: dict[str, dict[str, Any]] = json.loads(os.environ["API_TEST_DOOMED"])

# Answered for as long as somebody listens.
LASTING = {"open_ui", "follow_container_logs"}
NAME = re.compile("[a-z0-9](-?[a-z0-9])*")


def is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def is_meant_to_be_taken(case: schemathesis.Case) -> bool:
    return case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    operation = case.operation.definition.raw["operationId"]
    if operation == "follow_events":
        case.query = {**(case.query or {}), "follow": "false"}
    if operation in LASTING and is_name(case.path_parameters.get("environment")):
        case.path_parameters["environment"] = "nowhere"
    if operation == "update_dag" and isinstance(case.body, dict) and case.body.get("is_paused") is True:
        case.body["is_paused"] = False
    for name, spare in DOOMED.get(operation, {}).items():
        if case.path_parameters.get(name) == NAMES[name]:
            case.path_parameters[name] = spare
    if operation == "create_environment" and isinstance(case.body, dict) and is_name(case.body.get("name")):
        case.body["name"] = NAMES["environment"]
        return
    if not is_meant_to_be_taken(case):
        return
    # When it walks through the cases of a schema, the tool makes no headers with quotes and takes others for valid.
    if "If-Match" in case.headers and '"' not in case.headers["If-Match"]:
        case.headers["If-Match"] = "*"
    if operation == "update_environment" and isinstance(case.body, dict):
        case.body["config"] = CONFIG
    asked = json.dumps([case.path, case.path_parameters, case.query], sort_keys=True, default=str)
    if zlib.crc32(asked.encode()) % 4 == 0:
        return
    names = NAMES | DOOMED.get(operation, {})
    if operation in LASTING:
        return
    for name in case.path_parameters:
        if name in names:
            case.path_parameters[name] = names[name]
    if isinstance(case.body, dict):
        change_body(operation, case.body)


def change_body(operation: str, body: dict[str, Any]) -> None:
    if operation in {"create_backfill", "dry_run_backfill"}:
        body |= {"dag_id": NAMES["scheduled"], "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-02T00:00:00Z"}
