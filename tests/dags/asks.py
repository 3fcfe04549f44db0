"""Asks a question, and goes on when it is answered."""

from datetime import datetime

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param

with DAG("asks", schedule=None, start_date=datetime(2026, 1, 1)):
    HITLOperator(
        task_id="asks", subject="How much?", options=["some", "all"], params={"amount": Param(1, type="integer")}
    )
