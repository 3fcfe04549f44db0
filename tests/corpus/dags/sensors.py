from datetime import datetime, timedelta

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, PokeReturnValue, task
from notes import folder


def on_second_look(name):
    def look(dag_run):
        seen = folder(dag_run.dag_id, dag_run.run_id) / f"{name} was looked for"
        if seen.exists():
            return PokeReturnValue(is_done=True, xcom_value=f"{name} found")
        seen.touch()
        return False

    return look


def skip():
    raise AirflowSkipException("nothing to wait for")


def fail():
    raise ValueError("the sensor is broken")


with DAG("sensors", schedule=None, start_date=datetime(2026, 1, 1), default_args={"poke_interval": 0.5}):
    for mode in ("poke", "reschedule"):
        PythonSensor(task_id=mode, mode=mode, python_callable=on_second_look(mode), timeout=60)
        late = PythonSensor(task_id=f"late_{mode}", mode=mode, python_callable=lambda: False, timeout=1)
        late >> EmptyOperator(task_id=f"after_late_{mode}")
        soft = PythonSensor(task_id=f"soft_{mode}", mode=mode, python_callable=lambda: False, timeout=1, soft_fail=True)
        soft >> EmptyOperator(task_id=f"after_soft_{mode}")
    PythonSensor(task_id="skips", python_callable=skip, timeout=5)
    PythonSensor(task_id="breaks", python_callable=fail, timeout=5)
    PythonSensor(task_id="breaks_softly", python_callable=fail, timeout=5, soft_fail=True)
    PythonSensor(task_id="never_fails", python_callable=fail, timeout=5, never_fail=True)
    PythonSensor(task_id="retried", python_callable=fail, timeout=5, retries=1, retry_delay=timedelta(seconds=0.1))

    @task.sensor(poke_interval=0.5, timeout=30, mode="reschedule")
    def decorated(dag_run=None):
        return on_second_look("decorated")(dag_run)

    decorated()
