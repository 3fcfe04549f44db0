"""A timetable that no expression of cron has: the first of each quarter, for the quarter before."""

from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable


class Quarterly(Timetable):
    description = "the first of each quarter"

    @property
    def summary(self):
        return "quarterly"

    def infer_manual_data_interval(self, *, run_after):
        start = run_after.first_of("quarter").subtract(months=3)
        return DataInterval(start, start.add(months=3))

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        if last_automated_data_interval:
            start = last_automated_data_interval.end
        else:
            start = restriction.earliest.first_of("quarter")
        if restriction.latest and start > restriction.latest:
            return None
        return DagRunInfo.interval(start=start, end=start.add(months=3))


class QuarterlyPlugin(AirflowPlugin):
    name = "quarterly"
    timetables = [Quarterly]
