#!/bin/sh
# apache-airflow-core 3.3.2 on SQLite: a DAG run whose time has come is not examined before the next full second.
#
# Expected: a run whose `run_after` has passed is among the runs to examine.
# Observed: `run_after` is compared with the database's clock, which SQLAlchemy writes as CURRENT_TIMESTAMP. SQLite's has
#           no fractions, while `run_after` is stored with microseconds: for up to a second the run is left out, although
#           Python's clock is past it. A scheduler that looks again at once, and then waits for an event, waits in vain.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
  apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-standard==1.21.0

cat > "$folder/finding.py" <<'END'
import datetime
import time

import airflow.models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

airflow.models.import_all_models()
engine = create_engine("sqlite://")
Base.metadata.create_all(engine)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


with Session(engine) as session:
    session.add(DagBundleModel(name="files"))
    session.flush()
    session.add(DagModel(dag_id="d", bundle_name="files", is_paused=False, is_stale=False, fileloc="d.py"))
    session.flush()
    # A moment in the first half of a second, which has passed when the runs are asked for.
    while not 0.3 < now().microsecond / 1e6 < 0.5:
        time.sleep(0.01)
    due = now()
    session.add(
        DagRun(
            dag_id="d", run_id="r", run_type=DagRunType.ASSET_TRIGGERED, run_after=due, state=DagRunState.RUNNING,
            triggered_by=DagRunTriggeredByType.ASSET,
        )
    )
    session.commit()
    time.sleep(0.1)
    same_second = now().replace(microsecond=0) == due.replace(microsecond=0)
    print("its time has come:", now() > due, "in the same second:", same_second)
    print("runs to examine:", [run.run_id for run in DagRun.get_running_dag_runs_to_examine(session=session)])
    time.sleep(1)
    print("a second later:", [run.run_id for run in DagRun.get_running_dag_runs_to_examine(session=session)])
END
expected="its time has come: True in the same second: True
runs to examine: []
a second later: ['r']"
seen=$(AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" 2>"$folder/errors" \
  | grep -e '^its time' -e '^runs to' -e '^a second')
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
