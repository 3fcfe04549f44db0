#!/bin/sh
# From nothing to a finished DAG run: each line below is a command that you can type yourself.
set -eu
cd "$(dirname "$0")"

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
airflow() { say "airflow-serverless $*"; airflow-serverless "$@"; }

airflow create --env quickstart --config config.yaml
airflow dags create --env quickstart --file dags/etl.py
run_id="quickstart__$(date -u +%Y-%m-%dT%H:%M:%S)"
airflow dags trigger --env quickstart --dag-id etl --run-id "$run_id" --wait

say "airflow-serverless tasks logs --env quickstart --dag-id etl --run-id $run_id --task-id load"
airflow-serverless tasks logs --env quickstart --dag-id etl --run-id "$run_id" --task-id load | grep "Total order value"

cat <<END

That was Airflow without a server. Next:
  edit examples/dags/etl.py, then
  airflow-serverless dags update --env quickstart --file examples/dags/etl.py
  airflow-serverless dags trigger --env quickstart --dag-id etl --wait
  airflow-serverless runs list --env quickstart
  airflow-serverless daemon stop
The commands are in ${BIN:-your PATH}.
END
