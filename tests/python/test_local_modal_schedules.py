"""Schedules: their next times, what a new deployment makes of them, and their end."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from local_modal import LocalModal, binary

APP = """
import modal
app = modal.App("scheduled")
{functions}
"""
FUNCTION = """
@app.function(schedule=modal.{schedule})
def {name}(): pass
"""


def deploy(server: LocalModal, **schedules: str) -> subprocess.CompletedProcess[str]:
    functions = [FUNCTION.format(name=name, schedule=schedule) for name, schedule in schedules.items()]
    path = server.root / "scheduled.py"
    path.write_text(APP.format(functions="".join(functions)))
    return server.deploy(path)


def next_calls(server: LocalModal) -> dict[str, datetime | None]:
    command = [binary(), "status", "--data-dir", server.data, "--json"]
    status = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    functions = [function for app in status["apps"] for function in app["functions"]]
    times = {function["name"]: function["next_call"] for function in functions}
    return {name: time and datetime.fromtimestamp(time, UTC) for name, time in times.items()}


def next_time(hour: int, minute: int, zone: str) -> datetime:
    """The next time that a clock in a zone shows."""
    now = datetime.now(ZoneInfo(zone))
    time = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return time if time > now else (time + timedelta(days=1)).replace(hour=hour, minute=minute)


def test_next_schedule_times_follow_time_zones_and_deployments(local_modal: LocalModal) -> None:
    def hour_from_now(zone: str, hours: int) -> int:
        return (datetime.now(ZoneInfo(zone)) + timedelta(hours=hours)).hour

    # Well ahead, so that it does not come while the test runs.
    oslo, kathmandu, utc = hour_from_now("Europe/Oslo", 3), hour_from_now("Asia/Kathmandu", 5), hour_from_now("UTC", 7)
    first = {
        "oslo": f"Cron('30 {oslo} * * *', timezone='Europe/Oslo')",
        "kathmandu": f"Cron('15 {kathmandu} * * *', timezone='Asia/Kathmandu')",
        "utc": f"Cron('0 {utc} * * *')",
        "often": "Period(hours=2, minutes=30)",
        "daily": "Period(days=1)",
    }
    before = datetime.now(UTC)
    done = deploy(local_modal, **first)
    assert done.returncode == 0, done.stderr
    times = next_calls(local_modal)
    assert times["oslo"] == next_time(oslo, 30, "Europe/Oslo")
    assert times["kathmandu"] == next_time(kathmandu, 15, "Asia/Kathmandu")
    assert times["utc"] == next_time(utc, 0, "UTC")
    for name, period in (("often", timedelta(hours=2.5)), ("daily", timedelta(days=1))):
        time = times[name]
        assert time and before + period - timedelta(seconds=1) <= time <= datetime.now(UTC) + period
    # A failing deployment changes none of it.
    assert deploy(local_modal, oslo="Cron('0 0 * * *', timezone='Mars/Olympus')", utc="Period(days=9)").returncode != 0
    assert next_calls(local_modal) == times
    # Another time, none, and a Period that begins anew.
    done = deploy(local_modal, oslo=f"Cron('45 {oslo} * * *', timezone='Europe/Oslo')", often=first["often"])
    assert done.returncode == 0, done.stderr
    later = next_calls(local_modal)
    assert later["oslo"] == next_time(oslo, 45, "Europe/Oslo")
    assert set(later) == {"oslo", "often"}
    assert later["often"] and times["often"] and later["often"] > times["often"]
    local_modal.stop()
    local_modal.start()
    assert next_calls(local_modal) == later
    assert local_modal.modal("app", "stop", "--yes", "scheduled").returncode == 0
    assert next_calls(local_modal) == {}
