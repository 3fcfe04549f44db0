#!/bin/sh
# apache-airflow-providers-standard 1.21.0 with apache-airflow-core 3.3.2: a default for how long tasks may run becomes the
# time in which people have to answer.
#
# Expected: `[core] default_task_execution_timeout` limits execution only. A question without a `response_timeout` waits
#           for its answer without a limit.
# Observed: human-in-the-loop operators take `execution_timeout` for their `response_timeout`, also where it is the default
#           of the installation, and clear it. A question fails after the hour that was meant for running tasks.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
  apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-standard==1.21.0

cat > "$folder/finding.py" <<'END'
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

with DAG("one", schedule=None):
    asks = ApprovalOperator(task_id="asks", subject="Go on?")
    plain = EmptyOperator(task_id="plain")
    print("answer within:", asks.response_timeout)
    print("left of the execution timeout:", asks.execution_timeout)
END
expected=$(cat <<'END'
answer within: 1:00:00
left of the execution timeout: None
END
)
seen=$(AIRFLOW__CORE__DEFAULT_TASK_EXECUTION_TIMEOUT=3600 AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" 2>"$folder/errors") || true
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
