#!/bin/sh
# apache-airflow-task-sdk 1.3.2: values that are pushed as XComs without an error come back changed, or not at all.
#
# Expected: what `serialize` accepts, `deserialize` gives back.
# Observed: a Decimal goes through a float and loses digits beyond its precision. A datetime with an offset that has no name
#           cannot be read by any task, nor can the last moment of the year 9999, which is rounded up. A complex number,
#           too, is taken and cannot be read.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
  apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-standard==1.21.0

cat > "$folder/finding.py" <<'END'
import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from airflow.sdk.serde import deserialize, serialize


def back(value):
    try:
        return deserialize(json.loads(json.dumps(serialize(value))))
    except Exception as error:
        return type(error).__name__


east = timezone(timedelta(hours=2))
for value in (Decimal("0.1"), Decimal("99999999999999.99"), datetime(2026, 1, 1, tzinfo=timezone.utc),
              datetime(2026, 1, 1, tzinfo=east), datetime.max.replace(tzinfo=timezone.utc), 1 + 2j):
    print(f"{value!r} comes back as {back(value)!r}")
END
expected=$(cat <<'END'
Decimal('0.1') comes back as Decimal('0.1')
Decimal('99999999999999.99') comes back as Decimal('99999999999999.98')
datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc) comes back as datetime.datetime(2026, 1, 1, 0, 0, tzinfo=Timezone('UTC'))
datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone(datetime.timedelta(seconds=7200))) comes back as 'ValueError'
datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc) comes back as 'ValueError'
(1+2j) comes back as 'TypeError'
END
)
seen=$(AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" 2>"$folder/errors") || true
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
