"""Questions to people, who do not answer: what then becomes of the task."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLBranchOperator, HITLOperator
from airflow.sdk import DAG, task

SILENCE = {"subject": "Is anybody there?", "response_timeout": timedelta(seconds=10)}

with DAG("people", schedule=None, start_date=datetime(2026, 1, 1)):
    asked = HITLOperator(task_id="asked", options=["yes", "no"], defaults=["no"], **SILENCE)
    HITLOperator(task_id="unanswered", options=["yes", "no"], **SILENCE)

    @task
    def chosen(answer):
        return [answer["chosen_options"], answer["params_input"], answer["responded_by_user"]]

    @task
    def approved():
        return 1

    chosen(asked.output)
    ApprovalOperator(task_id="approval", defaults="Reject", **SILENCE) >> approved()
    branch = HITLBranchOperator(task_id="branch", options=["this", "that"], defaults="that", **SILENCE)
    branch >> [approved.override(task_id=name)() for name in ("this", "that")]
