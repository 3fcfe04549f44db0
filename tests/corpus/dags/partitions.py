"""Assets in partitions: keys from a schedule, from the run and from the task, mapped to those of other DAGs."""

from datetime import UTC, datetime

from airflow.sdk import (
    DAG,
    AllowedKeyMapper,
    Asset,
    CronPartitionTimetable,
    FanOutMapper,
    FixedKeyMapper,
    IdentityMapper,
    MinimumCount,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    ProductMapper,
    RollupMapper,
    SegmentWindow,
    StartOfDayMapper,
    StartOfMonthMapper,
    StartOfWeekMapper,
    WeekWindow,
    task,
)

DAYS = {"start_date": datetime(2026, 1, 5, tzinfo=UTC), "end_date": datetime(2026, 1, 7, tzinfo=UTC), "catchup": True}
DAILY, WEEKLY, BY_REGION, BY_DAY = (Asset(f"corpus://partitions/{name}") for name in ("day", "week", "region", "both"))
REGIONS = ["north", "south"]
REGION = RollupMapper(upstream_mapper=FixedKeyMapper("all"), window=SegmentWindow(REGIONS))
FEW_DAYS = RollupMapper(upstream_mapper=StartOfWeekMapper(), window=WeekWindow(), wait_policy=MinimumCount(3))


@task
def key(dag_run=None, partition_key=None):
    return [dag_run.partition_key, partition_key, str(dag_run.partition_date)]


with DAG("partitioned_days", schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC"), **DAYS):
    key.override(outlets=[DAILY])()

with DAG("partitioned_once", schedule=PartitionedAtRuntime()):
    # Without a key of its run it has one event, without a partition.
    key.override(outlets=[WEEKLY])()

with DAG("partitioned_by_task", schedule=PartitionedAtRuntime()):

    @task(outlets=[BY_REGION, BY_DAY])
    def regions(*, outlet_events):
        outlet_events[BY_REGION].add_partitions([*REGIONS, "west", "west"])
        outlet_events[BY_DAY].add_partitions(f"{REGIONS[0]}|2026-01-05T03:00:00")

    regions()

MAPPED = {
    "partition_by_partition": (DAILY, IdentityMapper()),
    "partition_by_month": (DAILY, StartOfMonthMapper()),
    "partition_of_days": (DAILY, FEW_DAYS),
    "partition_of_all_days": (DAILY, RollupMapper(upstream_mapper=StartOfWeekMapper(), window=WeekWindow())),
    "partitions_of_week": (WEEKLY, FanOutMapper(upstream_mapper=StartOfWeekMapper(), window=WeekWindow())),
    "partition_of_region": (BY_REGION, AllowedKeyMapper(REGIONS)),
    "partition_of_regions": (BY_REGION, REGION),
    "partition_of_both": (BY_DAY, ProductMapper(IdentityMapper(), StartOfDayMapper())),
}
for name, (asset, mapper) in MAPPED.items():
    with DAG(name, schedule=PartitionedAssetTimetable(assets=asset, default_partition_mapper=mapper)):
        key()

with DAG("partition_of_two_assets", schedule=PartitionedAssetTimetable(assets=DAILY & BY_REGION)):
    # Their keys are never the same.
    key()
