from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset, task

STORED = Asset("corpus://stored")

with DAG("state_stores", schedule=None, start_date=datetime(2026, 1, 1)):

    @task(retries=1, retry_delay=timedelta(seconds=0.1))
    def remembers(task_state_store=None, ti=None):
        before = task_state_store.get("job", default="none")
        task_state_store.set("job", {"number": ti.try_number})
        if ti.try_number == 1:
            raise RuntimeError("not yet")
        return before

    @task(inlets=[STORED], outlets=[STORED])
    def counts(asset_state_store=None):
        store = asset_state_store[STORED]
        store.set("count", store.get("count", default=0) + 1)
        return store.get("count")

    counts() >> counts.override(task_id="counts_on")()
    remembers()
