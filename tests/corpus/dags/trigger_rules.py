from datetime import datetime

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

RULES = (
    "all_success",
    "all_failed",
    "all_done",
    "all_skipped",
    "all_done_min_one_success",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "always",
)
MIXES = {"good": "ss", "bad": "ff", "skipped": "kk", "mixed": "sfk", "soft": "sk"}

with DAG("trigger_rules", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def fail():
        raise ValueError("as it should be")

    @task
    def skip():
        raise AirflowSkipException("as it should be")

    failed = fail()
    skipped = skip()
    never = EmptyOperator(task_id="never")
    failed >> never
    more = {
        "s": [EmptyOperator(task_id="succeed"), EmptyOperator(task_id="succeed_too")],
        "f": [failed, never],
        "k": [skipped, EmptyOperator(task_id="skipped_too")],
    }
    skipped >> more["k"][1]
    for mix, letters in MIXES.items():
        for rule in RULES:
            last = EmptyOperator(task_id=f"{mix}_{rule}", trigger_rule=rule)
            for position, letter in enumerate(letters):
                more[letter][0 if len(set(letters)) > 1 else position] >> last
