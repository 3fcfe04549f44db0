#!/bin/sh
# apache-airflow-core 3.3.2 with apache-airflow-task-sdk 1.3.2: DAGs that serialize without an error cannot be read or
# stored by the DAG processor.
#
# Expected: the SDK refuses a value that the scheduler cannot store, at the latest when the DAG is serialized, so that
#           it is an import error of its file.
# Observed: `dagrun_timeout=timedelta.max` becomes a float that is rounded up, and reading it raises OverflowError. An
#           asset's URI that is not ASCII is serialized, and its row raises ValueError. Neither is an import error: the
#           exception aborts the write of every DAG in the same batch.
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

from airflow.models.asset import AssetModel
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.serialization.serialized_objects import DagSerialization

with DAG("endless", schedule=None, dagrun_timeout=timedelta.max) as endless:
    EmptyOperator(task_id="nothing")
with DAG("named", schedule=None) as named:
    EmptyOperator(task_id="nothing", outlets=[Asset("scheme://größe/1")])


def outcome(action):
    try:
        action()
        return "works"
    except Exception as error:
        while error.__cause__ and not isinstance(error, ValueError):
            error = error.__cause__
        return type(error).__name__


for dag in (endless, named):
    print(dag.dag_id, "is serialized:", outcome(lambda: DagSerialization.to_dict(dag)))
print("endless is read:", outcome(lambda: DagSerialization.from_dict(DagSerialization.to_dict(endless))))
print("the asset's row:", outcome(lambda: AssetModel(name="one", uri="scheme://größe/1")))
END
expected='endless is serialized: works
named is serialized: works
endless is read: OverflowError
the asset'"'"'s row: ValueError'
seen=$(AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" 2>"$folder/errors" | grep -e ' is serialized: ' -e ' is read: ' -e 'row: ')
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
