"""XCom payloads lie on the Volume under names that no identifier can lead out of, or to those of another.

What is pulled is what was pushed.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import math
import uuid
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest

VOLUME = "AIRFLOW_SERVERLESS_VOLUME"
# Pairs of identifiers whose files would be one without quoting, or would be elsewhere.
KEYS = ("a/b", "a%2Fb", "..", ".", "a", "A", "ä", "with space", "x" * 300, "x" * 301)

BERLIN = ZoneInfo("Europe/Berlin")
EAST = datetime.timezone(datetime.timedelta(hours=2))
MOMENTS = (
    datetime.datetime(2024, 1, 1, 1, 2, 3, 456789, tzinfo=datetime.UTC),
    datetime.datetime(2024, 1, 1, tzinfo=EAST),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, minutes=-30), "named")),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(microseconds=1))),
    datetime.datetime.max.replace(tzinfo=datetime.UTC),
    datetime.datetime.min.replace(tzinfo=datetime.UTC),
    datetime.datetime.max.replace(tzinfo=EAST),
    datetime.datetime.min.replace(tzinfo=EAST),
    datetime.datetime(3000, 1, 1, 0, 0, 0, 123457, tzinfo=datetime.UTC),
    datetime.datetime(2024, 10, 27, 2, 30, fold=0, tzinfo=BERLIN),
    datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    datetime.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN),
    datetime.datetime(2024, 1, 1, 1, 1, 1, 1),
    datetime.datetime.max,
    datetime.datetime.min,
    pendulum.datetime(2024, 1, 1, tz="Europe/Berlin"),
    pendulum.datetime(2024, 1, 1, tz=pendulum.fixed_timezone(7200)),
    pendulum.datetime(9999, 12, 31, 23, 59, 59, 999999),
    pendulum.naive(2024, 1, 1),
)
OTHERS = (
    Decimal("99999999999999.99"),
    Decimal("1e-400"),
    Decimal("1.10"),
    Decimal(10) ** 400,
    Decimal("0.1"),
    [Decimal("-0"), Decimal("NaN"), Decimal("-Infinity")],
    datetime.timedelta.max,
    datetime.timedelta.min,
    datetime.timedelta(days=200000, microseconds=1),
    datetime.timedelta(microseconds=-1),
    datetime.date.max,
    [math.nan, math.inf, -0.0, 1.0, 1, True, None],
    [2**53 + 1, -(2**70)],
    ({1}, frozenset({(1, (2,))}), (), set()),
    {"nested": [{"a": (Decimal("99999999999999.99"),)}]},
    "nul \0, surrogate \ud800",
    uuid.UUID(int=1),
    {"__version__": 1, "__data__": 2},
)


@dataclasses.dataclass
class Inner:
    at: datetime.datetime


@dataclasses.dataclass
class Outer:
    inner: Inner
    many: list[Inner]


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VOLUME, str(tmp_path))
    return tmp_path


def write(value: Any, key: str = "key", dag_id: str = "dag", map_index: int = -1) -> dict[str, Any]:
    from airflow_serverless.xcom.backend import VolumeXComBackend

    where = {"key": key, "task_id": "task", "dag_id": dag_id, "run_id": "run", "map_index": map_index}
    reference: dict[str, Any] = VolumeXComBackend.serialize_value(value, **where)
    return reference


def read(reference: dict[str, Any]) -> Any:
    from airflow_serverless.xcom.backend import VolumeXComBackend

    return VolumeXComBackend.deserialize_value(SimpleNamespace(value=reference))


def test_each_key_has_its_own_file_below_its_task(volume: Path) -> None:
    references = {key: write(f"value of {key}", key) for key in KEYS}
    assert {key: read(reference) for key, reference in references.items()} == {key: f"value of {key}" for key in KEYS}
    files = [path for path in (volume / "xcom").rglob("*") if path.is_file()]
    assert len(files) == len(KEYS)
    assert {path.parent for path in files} == {volume / "xcom/dag/run/task"}


def test_slash_in_an_identifier_is_encoded(volume: Path) -> None:
    one, other = write(1, "c", dag_id="a/b"), write(2, "c", dag_id="a")
    assert (read(one), read(other)) == (1, 2)
    assert len(list((volume / "xcom").iterdir())) == 2


def test_mapped_tasks_have_separate_files(volume: Path) -> None:
    references = [write(index, map_index=index) for index in (-1, 0, 1)]
    assert [read(reference) for reference in references] == [-1, 0, 1]
    assert all(one != other for one, other in combinations(references, 2))


def test_reference_outside_the_xcom_folder_is_refused(volume: Path) -> None:
    (volume / "secret").write_text('"secret"')
    for path in ("../secret", str(volume / "secret")):
        with pytest.raises(ValueError, match="outside of the XCom folder"):
            read({"__volume_xcom__": path, "bytes": 8})


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_datetime_round_trips(volume: Path, moment: datetime.datetime) -> None:
    pulled = read(write([moment]))[0]
    assert type(pulled) is type(moment)
    assert pulled.replace(tzinfo=None) == moment.replace(tzinfo=None)
    assert pulled.utcoffset() == moment.utcoffset()


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_value_round_trips(volume: Path, value: object) -> None:
    pulled = read(write(value))
    # No two NaNs are equal, and numbers of different types are.
    assert pulled == value if isinstance(value, Decimal) else repr(pulled) == repr(value)
    assert type(pulled) is type(value)


def test_nested_dataclasses_round_trip(volume: Path) -> None:
    from airflow.sdk.serde import allow_class

    for written in (Inner, Outer):
        allow_class(written)
    value = Outer(Inner(MOMENTS[1]), [Inner(MOMENTS[4])])
    assert read(write(value)) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1: "a", "1": "b"}, "would become one as text"),
        ([({None: 1, "None": 2},)], "would become one as text"),
        ({"__type": "dict", "__var": {}}, "rename one of them"),
        (1j, "imaginary part"),
    ],
)
def test_values_that_would_not_round_trip_are_refused(volume: Path, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write(value)


def test_dict_keys_converted_to_text_are_logged(volume: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As on stock Airflow, but that the log says so: DAGs rely on it."""
    with caplog.at_level(logging.WARNING):
        assert read(write([{1: "a", (2, 3): "b", "c": "d"}])) == [{"1": "a", "(2, 3)": "b", "c": "d"}]
    assert "Keys of dicts in the XCom 'key' become text: (2, 3), 1." in caplog.text
