"""Odd values of each type that Airflow's parameters take, as Python expressions for DAG files."""

from __future__ import annotations

from hypothesis import strategies as st

MARK = "case0000"
"""Stands for the name of a case, of the same length, in sources and commands."""

Expressions = st.SearchStrategy[str]

TEXTS = (
    *("", " ", "x", "a\nb", "a/b", "..", "größe", "😀" * 60, "\u202eabc", "\ud800", "a\udc80b", "\0", "\x1b[31m"),
    *("{{ 1 / 0 }}", "{{ ts }}", "{{", "%s %d %", "NaN", "null", "'; DROP TABLE dag; --", "\ufeff", "İ", "e\u0301"),
    *(
        "x" * 250,
        "x" * 251,
        "ü" * 250,
        "x" * 5_000,
        "x" * 300_000,
        "\U0010ffff",
        "\uffff",
        "__pycache__",
        "default_pool",
    ),
)
IDENTIFIERS = (
    *("a", "größe", "-", "_", "İ" * 100, "数" * 83, "x" * 245) * 3,
    "x" * 250,
    "x" * 251,
    "a.b",
    "..",
    "a b",
    "",
)
SMALL = (0, 1, 2, 3, 7, 100, 128, 129, 2**15, 2**31 - 1, -1, True, False)
NUMBERS = (
    10**400,
    0,
    -1,
    1,
    2,
    *(sign * 2**power + step for sign in (1, -1) for power in (15, 31, 53, 63, 70) for step in (-1, 0)),
)
OTHERS = (
    "None",
    "True",
    "False",
    "[]",
    "{}",
    "()",
    "set()",
    "b'x'",
    "object()",
    "lambda *_: 1",
    "1j",
    "Decimal('1.5')",
)

texts: Expressions = st.one_of(st.sampled_from(TEXTS), st.text(max_size=20)).map(ascii)
floats: Expressions = st.sampled_from(
    ("0.0", "-0.0", "1.5", "1e-9", "5e-324", "1e300", "1e400", "-1e400", "math.nan", "1e18", "86400.0 * 365 * 10_000")
)
integers: Expressions = st.one_of(st.sampled_from(SMALL), st.sampled_from(SMALL), st.sampled_from(NUMBERS)).map(str)
numbers: Expressions = st.one_of(integers, integers, floats)
booleans: Expressions = st.sampled_from((*("True", "False") * 8, "1", "0", "None", "'yes'"))
anything: Expressions = st.one_of(st.sampled_from(OTHERS), texts, numbers)

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Monrovia",
    "America/St_Johns",
    "Antarctica/Troll",
)
CLOCKS = (
    *(
        "1, 1, 1",
        "1, 1, 1, 0, 0, 0, 1",
        "1582, 10, 10",
        "1899, 12, 31, 23, 59, 59, 999999",
        "1969, 12, 31",
        "1970, 1, 1",
    ),
    *("2011, 12, 30", "2026, 3, 29, 2, 30", "2026, 10, 25, 2, 30, fold=1", "2024, 2, 29", "2038, 1, 19, 3, 14, 8"),
    *("2026, 1, 1", "2026, 11, 1", "9999, 12, 30", "9999, 12, 31, 23, 59, 59, 999999", "9999, 12, 31"),
)
zones: Expressions = st.one_of(
    *(st.sampled_from(ZONES).map(form.format) for form in ("ZoneInfo('{}')", "pendulum.timezone('{}')")),
    st.sampled_from(("UTC", "timezone(timedelta(hours=23, minutes=59))", "timezone(-timedelta(seconds=1))", "None")),
    st.just("timezone(timedelta(microseconds=1))"),
)
moments: Expressions = st.one_of(
    st.builds(
        "pendulum.datetime({}, tz={!r})".format,
        st.sampled_from(CLOCKS).filter(lambda text: "fold" not in text),
        st.sampled_from(ZONES),
    ),
    st.builds("datetime({}, tzinfo={})".format, st.sampled_from(CLOCKS), zones),
    st.sampled_from(
        ("datetime.max", "datetime.min", "pendulum.now('UTC')", "pendulum.now('Asia/Kathmandu').add(years=7)")
    ),
    st.datetimes().map(lambda moment: repr(moment).removeprefix("datetime.")),
)
SPANS = (
    *("timedelta.max", "timedelta.min", "timedelta(0)", "timedelta(microseconds=1)", "timedelta(microseconds=-1)"),
    *("timedelta(seconds=1)", "timedelta(seconds=-1)", "timedelta(days=1)", "timedelta(days=365_000)"),
    *("timedelta(days=365_001)", "timedelta(days=2_900_000)", "timedelta(days=3_000_000)", "timedelta(days=-700_000)"),
    *(
        "relativedelta(months=1)",
        "relativedelta(years=8_000)",
        "relativedelta(day=31)",
        "relativedelta(years=-1)",
        "relativedelta(microseconds=1)",
    ),
)
spans: Expressions = st.one_of(
    st.sampled_from(SPANS), st.timedeltas().map(lambda span: repr(span).removeprefix("datetime."))
)

CRONS = (
    *("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly", "@never", "@reboot"),
    *(
        "* * * * *",
        "* * * * * *",
        "*/7 * * * * */3",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "0 0 * * 5#5",
        "0 0 L * *",
    ),
    *(
        "30 2 29 3 *",
        "0 0 1 1 0",
        "60 * * * *",
        "0 0 0 0 0",
        "H H * * *",
        "R R * * *",
        "0-59/59 * * * *",
        "0 0 * * mon-sun",
    ),
    *("", " ", "0 0 * *", "0 0 29 2 1#5", "59 23 31 12 *", "0 0 1 1 * 0 2099", "0 0 1 1 * 0 1970-1971", "*/61 * * * *"),
)
crons: Expressions = st.sampled_from(CRONS).map(repr)
assets: Expressions = st.one_of(
    st.builds("Asset({}, uri={})".format, texts, st.one_of(texts, st.just("'s3://a/MARK'"))),
    st.builds("Asset('asset-MARK', extra={{{}: {}}}, group={})".format, texts, anything, texts),
    st.builds("Asset({})".format, st.one_of(texts, st.just("'asset-MARK'"))),
    st.builds("AssetAlias({})".format, texts),
).map(lambda text: text.replace("MARK", MARK))
schedules: Expressions = st.one_of(
    crons,
    spans,
    assets,
    st.just("None"),
    st.lists(assets, max_size=3).map(lambda found: f"[{', '.join(found)}]"),
    st.builds("({} & ({} | {}))".format, assets, assets, assets),
    st.builds("CronTriggerTimetable({}, timezone={}, interval={})".format, crons, zones, spans),
    st.builds("CronTriggerTimetable({}, timezone='UTC', run_immediately={})".format, crons, st.one_of(booleans, spans)),
    st.builds("CronDataIntervalTimetable({}, timezone={})".format, crons, st.sampled_from(ZONES).map(repr)),
    st.builds("DeltaTriggerTimetable({}, interval={})".format, spans, spans),
    st.builds("DeltaDataIntervalTimetable({})".format, spans),
    st.builds("MultipleCronTriggerTimetable({}, {}, timezone='UTC')".format, crons, crons),
    st.builds("EventsTimetable([{}, {}], restrict_to_events={})".format, moments, moments, booleans),
    st.builds(
        "AssetOrTimeSchedule(assets=[{}], timetable=CronTriggerTimetable({}, timezone='UTC'))".format, assets, crons
    ),
    st.builds(
        "CronPartitionTimetable({}, timezone='UTC', run_offset={}, key_format={})".format, crons, integers, texts
    ),
    st.builds("PartitionedAssetTimetable(assets={})".format, assets),
    st.just("PartitionedAtRuntime()"),
)
deadlines: Expressions = st.builds(
    "DeadlineAlert({}, {}, AsyncCallback(awaits, kwargs={{{}: {}}}), name={})".format,
    st.one_of(
        st.sampled_from([f"DeadlineReference.{name}" for name in ("DAGRUN_LOGICAL_DATE", "DAGRUN_QUEUED_AT")]),
        moments.map("DeadlineReference.FIXED_DATETIME({})".format),
        st.builds("DeadlineReference.AVERAGE_RUNTIME(max_runs={}, min_runs={})".format, integers, integers),
    ),
    spans,
    texts,
    anything,
    st.one_of(st.just("None"), texts),
)
callbacks: Expressions = st.sampled_from(
    ("called", "[called, called]", "raises", "leaves", "partial(called, x='\\0')", "None")
)
