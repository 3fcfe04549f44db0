"""Corrects Airflow's serialization where what is read is not what was written.

What Task SDK 1.3.2 (`airflow/sdk/serde`) reads back unchanged is written as it writes it. The rest is written in a way
that it reads, if there is one, or as a class of this module, or refused with a ValueError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import numbers
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import pendulum
from airflow.sdk import serde
from airflow.sdk.serde.serializers import bignum
from airflow.sdk.serde.serializers import datetime as moments
from airflow.sdk.serde.serializers import timezone as timezones
from pendulum.tz.timezone import FixedTimezone

PLAIN = frozenset({str, int, float, bool, type(None)})
OLD_KEYS = frozenset({"__type", "__var"})
"""A dict that has both is taken for a value in the form of Airflow 2."""
MOMENTS = {"datetime": datetime.datetime, "DateTime": pendulum.DateTime}
Serialize = Callable[..., Any]

log = logging.getLogger(__name__)
_changed_keys: ContextVar[set[str] | None] = ContextVar("changed_keys", default=None)
"""Keys of dicts that become text, while the value of an XCom is serialized."""


class Moment:
    """A datetime that no timestamp can tell: {"class", "text": ISO 8601 without an offset, "fold", "zone"}.

    `zone` is the name of a time zone, its offset in seconds, or None.
    """

    def __init__(self, moment: datetime.datetime) -> None:
        self._moment = moment

    def serialize(self) -> dict[str, Any]:
        """The fields from which `deserialize` restores an equal value."""
        moment = self._moment
        name, _, _, is_named = timezones.serialize(moment.tzinfo) if moment.tzinfo else (None, "", 0, True)
        offset = moment.utcoffset()
        return {
            "class": "DateTime" if isinstance(moment, pendulum.DateTime) else "datetime",
            "text": _wall_time(moment).isoformat(),
            "fold": moment.fold,
            "zone": name if is_named or offset is None else offset.total_seconds(),
        }

    @staticmethod
    def deserialize(data: dict[str, Any], version: int) -> datetime.datetime:
        """Restore a value."""
        wall, zone = datetime.datetime.fromisoformat(data["text"]), data["zone"]
        if isinstance(zone, str):
            tz: datetime.tzinfo | None = pendulum.timezone(zone)
        else:
            tz = None if zone is None else datetime.timezone(datetime.timedelta(seconds=zone))
        date, time = wall.timetuple()[:3], (wall.hour, wall.minute, wall.second, wall.microsecond)
        return MOMENTS[data["class"]](*date, *time, tzinfo=tz, fold=data["fold"])


class Span:
    """A timedelta that seconds in a float cannot tell: {"days", "seconds", "microseconds"}."""

    def __init__(self, span: datetime.timedelta) -> None:
        self._span = span

    def serialize(self) -> dict[str, int]:
        """The fields from which `deserialize` restores an equal value."""
        return {name: getattr(self._span, name) for name in ("days", "seconds", "microseconds")}

    @staticmethod
    def deserialize(data: dict[str, int], version: int) -> datetime.timedelta:
        """Restore a value."""
        return datetime.timedelta(**data)


def install() -> None:
    """Have all serialization in this process corrected."""
    original = serde.serialize
    if getattr(original, "is_exact", False):
        return

    def serialize(o: object, depth: int = 0) -> Any:
        """The fields from which `deserialize` restores an equal value."""
        return o if type(o) in PLAIN else _serialize(o, depth, original)

    serialize.is_exact = True  # type: ignore[attr-defined]
    serde.serialize = serialize
    for written in (Moment, Span):
        serde.allow_class(written)


@contextlib.contextmanager
def of_xcom(key: str | None) -> Iterator[None]:
    """While the value of an XCom is serialized, its dicts are checked: what is read has them with keys of text.

    Airflow does that silently, and DAGs have come to rely on it: the task's log says so.
    """
    keys: set[str] = set()
    before = _changed_keys.set(keys)
    try:
        yield
    finally:
        _changed_keys.reset(before)
    if keys:
        log.warning(
            "Keys of dicts in the XCom %r become text: %s. To keep them, push a list of pairs.",
            key,
            ", ".join(sorted(keys)),
        )


def _serialize(o: object, depth: int, original: Serialize) -> Any:
    if isinstance(o, dict):
        _check_keys(o)
    elif type(o) is Decimal:
        data, name, version, _ = bignum.serialize(o) if o.is_finite() else ("", "decimal.Decimal", 1, True)
        if not o.is_finite() or bignum.deserialize(Decimal, version, data) != o or (o.is_zero() and o.is_signed()):
            return serde.encode(name, version, str(o))
    elif isinstance(o, datetime.datetime):
        if type(o) in MOMENTS.values():
            return _serialize_moment(o, depth, original)
    elif type(o) is datetime.timedelta:
        if not _is_kept(o):
            return original(Span(o), depth)
    elif dataclasses.is_dataclass(o) and not isinstance(o, type):
        if not hasattr(o, "serialize") and serde.qualname(o) not in serde._serializers:
            return _serialize_dataclass(o, depth)
    elif isinstance(o, numbers.Complex) and o.imag != 0:
        raise ValueError(f"{o!r} would lose its imaginary part: push a list of both parts")
    return original(o, depth)


def _serialize_moment(moment: datetime.datetime, depth: int, original: Serialize) -> Any:
    offset = moment.utcoffset()
    if offset is not None and not timezones.serialize(moment.tzinfo)[3] and not offset % datetime.timedelta(seconds=1):
        # A zone without a name is its offset; Airflow reads those of pendulum.
        fixed = datetime.datetime.replace(moment, tzinfo=FixedTimezone(int(offset.total_seconds())))
        if _is_kept(fixed):
            return original(fixed, depth)
    return original(moment if moment.tzinfo is not None and _is_kept(moment) else Moment(moment), depth)


def _is_kept(value: Any) -> bool:
    """Whether Airflow reads back what it writes for a datetime or timedelta."""
    try:
        data, _, version, _ = moments.serialize(value)
        if isinstance(data, dict) and isinstance(data["tz"], tuple) and not data["tz"][3]:
            return False
        found: Any = moments.deserialize(type(value), version, data)  # type: ignore[arg-type]
    except (ValueError, OverflowError, OSError):
        return False
    if isinstance(value, datetime.datetime):
        return _wall_time(found) == _wall_time(value) and found.utcoffset() == value.utcoffset()
    return bool(found == value)


def _wall_time(moment: datetime.datetime) -> datetime.datetime:
    time = (moment.hour, moment.minute, moment.second, moment.microsecond)
    return datetime.datetime(moment.year, moment.month, moment.day, *time)


def _serialize_dataclass(o: Any, depth: int) -> dict[str, Any]:
    """As Airflow does, but that dataclasses in it stay what they are."""
    fields = {field.name: getattr(o, field.name) for field in dataclasses.fields(o)}
    version = getattr(type(o), "__version__", serde.DEFAULT_VERSION)
    return serde.encode(serde.qualname(o), version, serde.serialize(fields, depth + 1))


def _check_keys(value: dict[Any, Any]) -> None:
    changed = _changed_keys.get()
    if changed is None:
        return
    if value.keys() >= OLD_KEYS:
        raise ValueError(f"a dict with the keys {sorted(OLD_KEYS)} would be read as something else: rename one of them")
    others = [key for key in value if not (isinstance(key, str) and str(key) == key)]
    if others and len({str(key) for key in value}) < len(value):
        raise ValueError(f"keys of a dict would become one as text: {others!r}. Push a list of pairs instead")
    changed.update(map(repr, others))
