import datetime
from collections import namedtuple
from decimal import Decimal

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task

with DAG("xcoms", schedule=None, start_date=datetime.datetime(2026, 1, 1)):

    @task
    def nothing():
        return None

    @task
    def big():
        return "x" * 300_000

    @task
    def nested():
        return {"list": [1, [2, [3, {"four": 4.5}]]], "empty": {}, "true": True, "unicode": "grüße ☃", "16": "16"}

    @task
    def scalars():
        return ["16", 16, 2.5e-3, False, "", None]

    @task
    def sixteen():
        return "16"

    @task
    def zero():
        return 0

    @task
    def typed():
        return {
            "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
            "delta": datetime.timedelta(seconds=90),
            "tuple": (1, 2),
            "set": {"one"},
            "decimal": Decimal("1.50"),
        }

    @task
    def custom(ti=None):
        ti.xcom_push(key="own key/with slash", value={"pushed": 1})
        ti.xcom_push(key="again", value=1)
        ti.xcom_push(key="again", value=2)
        return "done"

    @task
    def reader(ti=None):
        return [
            ti.xcom_pull(task_ids="custom", key="own key/with slash"),
            ti.xcom_pull(task_ids="custom", key="again"),
            ti.xcom_pull(task_ids=["zero", "nothing", "sixteen"]),
            ti.xcom_pull(task_ids="custom", key="absent"),
            ti.xcom_pull(task_ids="custom", key="absent", default="given"),
            len(ti.xcom_pull(task_ids="big")),
            str(sorted(ti.xcom_pull(task_ids="typed").items())),
        ]

    unpushed = PythonOperator(task_id="unpushed", python_callable=lambda: 1, do_xcom_push=False)
    [nothing(), big(), nested(), scalars(), sixteen(), zero(), typed(), custom(), unpushed] >> reader()

Point = namedtuple("Point", "x y")


class Opaque:
    pass


with DAG("unserialisable", schedule=None, start_date=datetime.datetime(2026, 1, 1)):

    @task
    def opaque():
        return Opaque()

    @task
    def function():
        return len

    @task
    def inside():
        return {"fine": 1, "opaque": Opaque()}

    @task
    def pushed(ti=None):
        ti.xcom_push(key="opaque", value=Opaque())

    @task
    def keyed():
        return {1: "one"}

    @task
    def point():
        return Point(1, 2)

    [opaque(), function(), inside(), pushed(), keyed(), point()]
