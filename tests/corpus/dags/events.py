from datetime import UTC, datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, EventsTimetable

MOMENTS = EventsTimetable(
    [datetime(2026, 1, 5, 1, tzinfo=UTC), datetime(2026, 1, 6, 2, tzinfo=UTC)], description="two moments"
)

with DAG("scheduled_events", schedule=MOMENTS, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=True):
    EmptyOperator(task_id="happens")
