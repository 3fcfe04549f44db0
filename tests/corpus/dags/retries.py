from datetime import datetime, timedelta
from itertools import pairwise

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, ExceptionRetryPolicy, RetryAction, RetryRule, get_current_context, task
from notes import folder

with DAG("retries", schedule=None, start_date=datetime(2026, 1, 1)):

    @task(retries=2, retry_delay=timedelta(seconds=0.1))
    def third_time():
        ti = get_current_context()["ti"]
        ti.xcom_push(key="try", value=ti.try_number)
        if ti.try_number < 3:
            raise RuntimeError("not yet")
        return "at last"

    @task(
        retries=2, retry_delay=timedelta(seconds=0.2), retry_exponential_backoff=2, max_retry_delay=timedelta(seconds=1)
    )
    def backing_off():
        raise RuntimeError("never")

    @task(retries=2, retry_delay=timedelta(seconds=0.5), retry_exponential_backoff=3.0)
    def waits_longer_and_longer(dag_run=None):
        # One file for each try: what it waited at least, before the second 0.5 s, before the third 1.5 s.
        place = folder(dag_run.dag_id, dag_run.run_id)
        (place / f"try {len(list(place.iterdir()))}").touch()
        moments = sorted(file.stat().st_mtime for file in place.iterdir())
        if len(moments) < 3:
            raise RuntimeError("not yet")
        waited = [later - earlier for earlier, later in pairwise(moments)]
        return [second >= 0.5 * 3**number for number, second in enumerate(waited)]

    third_time()
    backing_off()
    waits_longer_and_longer()
    BashOperator(
        task_id="by_try",
        bash_command="echo {{ ti.try_number }}; test {{ ti.try_number }} = 2",
        retries=1,
        retry_delay=timedelta(0),
    )

POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=ValueError, action=RetryAction.FAIL, reason="no use"),
        RetryRule(exception=OSError, action=RetryAction.RETRY, retry_delay=timedelta(seconds=0.2)),
    ]
)

with DAG("retry_policies", schedule=None, start_date=datetime(2026, 1, 1)):

    @task(retries=2, retry_delay=timedelta(seconds=0.1), retry_policy=POLICY)
    def raises(name):
        raise {"ValueError": ValueError, "ConnectionError": ConnectionError, "KeyError": KeyError}[name]("as asked")

    @task(retries=2, retry_delay=timedelta(hours=1), retry_policy=POLICY)
    def sooner(ti=None):
        if ti.try_number == 1:
            raise OSError("retried by the policy, not after an hour")
        return ti.try_number

    for name in ("ValueError", "ConnectionError", "KeyError"):
        raises.override(task_id=name)(name)
    sooner()
