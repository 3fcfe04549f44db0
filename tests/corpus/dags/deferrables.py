"""Waits are not short: stock Airflow fails a task that is resumed before its executor has said that it is deferred,
which may take as long as its machine is slow."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensor, DateTimeSensorAsync
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

PAST = datetime(2026, 1, 1, tzinfo=UTC)
WAIT = 10
SOON = "{{ (macros.datetime.now().astimezone() + macros.timedelta(seconds=10)).isoformat() }}"


class Waits(BaseOperator):
    """Defers, with an argument for its own continuation."""

    def __init__(self, seconds=WAIT, patience=None, **more):
        super().__init__(**more)
        self.seconds, self.patience = seconds, patience

    def execute(self, context):
        self.defer(
            trigger=TimeDeltaTrigger(timedelta(seconds=self.seconds)),
            method_name="resume",
            kwargs={"said": "before"},
            timeout=self.patience and timedelta(seconds=self.patience),
        )

    def resume(self, context, event=None, said=None):
        return [said, type(event).__name__]


class FailsAfter(Waits):
    def resume(self, context, event=None, said=None):
        raise ValueError("after it was resumed")


class WaitsTwice(Waits):
    def resume(self, context, event=None, said=None):
        self.defer(
            trigger=TimeDeltaTrigger(timedelta(seconds=WAIT)),
            method_name="resume_again",
            kwargs={"said": [said, "then"]},
        )

    def resume_again(self, context, event=None, said=None):
        return [*said, type(event).__name__]


class WaitsForSome(Waits):
    """Instances of a mapped task that defer, or fail, or need not wait."""

    def __init__(self, number=0, **more):
        super().__init__(**more)
        self.number = number

    def execute(self, context):
        if self.number == 1:
            return "at once"
        return super().execute(context)

    def resume(self, context, event=None, said=None):
        if self.number == 2:
            raise ValueError("not this one")
        return self.number


with DAG("deferrables", schedule=None, start_date=PAST):
    Waits(task_id="waits") >> EmptyOperator(task_id="after")
    Waits(task_id="impatient", seconds=60, patience=WAIT)
    WaitsTwice(task_id="waits_twice")
    FailsAfter(task_id="fails_after", retries=1, retry_delay=timedelta(seconds=0.1))
    WaitsForSome.partial(task_id="mapped").expand(number=list(range(5)))
    DateTimeSensorAsync(task_id="moment", target_time=SOON)
    DateTimeSensor(task_id="moment_poked", target_time=PAST)
    # Its XCom says whether it had to wait, which depends on when it is started.
    TimeDeltaSensor(task_id="delta", delta=timedelta(seconds=1), deferrable=True, do_xcom_push=False)
