from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, AssetAny, Metadata, asset, task

START = datetime(2026, 1, 1)
ONE, TWO, THREE = Asset("corpus://one"), Asset("corpus://two"), Asset("corpus://three")
ALIAS = AssetAlias("corpus-alias")
DECORATED = Asset(name="decorated_asset", uri="corpus://decorated")


@task
def events(triggering_asset_events=None):
    return {
        getattr(key, "uri", key.name): sorted((event.extra.get("size", 0), event.source_task_id) for event in found)
        for key, found in triggering_asset_events.items()
    }


with DAG("asset_producer", schedule=None, start_date=START):

    @task(outlets=[ONE])
    def one(*, outlet_events):
        outlet_events[ONE].extra = {"size": 7}

    @task(outlets=[TWO])
    def two():
        yield Metadata(TWO, {"size": 8})

    @task(outlets=[THREE])
    def fails():
        raise ValueError("so there is no event")

    one() >> two()
    fails()

with DAG("asset_alias_producer", schedule=None, start_date=START):

    @task(outlets=[ALIAS])
    def aliased(*, outlet_events):
        outlet_events[ALIAS].add(Asset("corpus://behind-the-alias"), extra={"size": 9})

    aliased()

with DAG("asset_and", schedule=ONE & TWO, start_date=START):
    events()

with DAG("asset_or", schedule=AssetAny(ONE, THREE), start_date=START):
    events()

with DAG("asset_never", schedule=ONE & THREE, start_date=START):
    EmptyOperator(task_id="never")

with DAG("asset_of_alias", schedule=Asset("corpus://behind-the-alias"), start_date=START):
    events()

with DAG("asset_behind_alias", schedule=ALIAS, start_date=START):
    events()


@asset(schedule=TWO, uri="corpus://decorated")
def decorated_asset(self, context):
    return self.uri


with DAG("asset_reader", schedule=DECORATED, start_date=START):

    @task(inlets=[DECORATED])
    def seen(*, inlet_events):
        return len(inlet_events[DECORATED])

    seen()
