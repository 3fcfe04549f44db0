"""Assets: a DAG runs when another one has updated what it depends on."""

from airflow.sdk import Asset, Metadata, dag, task

orders = Asset("s3://shop/orders.parquet")


@dag(schedule=None, tags=["example"])
def produce_orders():
    @task(outlets=[orders])
    def write_orders():
        # A real task would write the file; consumers get what is known of it.
        yield Metadata(orders, {"rows": 42})

    write_orders()


@dag(schedule=[orders], tags=["example"])
def consume_orders():
    @task
    def read_orders(triggering_asset_events) -> int:
        rows = sum(event.extra["rows"] for event in triggering_asset_events[orders])
        print(f"{rows} new rows")
        return rows

    read_orders()


produce_orders()
consume_orders()
