#!/bin/sh
# uv 0.13.9: `uv pip install -c` refuses what `uv pip compile` has written for a requirement that is a local wheel.
#
# Expected: a lock that one command of uv writes is one that the other takes as constraints, as pip 25.3 does: the name
#           and the version of a wheel are in its file name.
# Observed: `uv pip compile` writes the path alone, `-r` takes it, and `-c` ends with status 2: "Unnamed requirements are
#           not allowed as constraints". pip takes the same file with `-c`.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip==25.3
cat > wheel.py <<'END'
import zipfile

info = "small_thing-1.0.dist-info/"
with zipfile.ZipFile("small_thing-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("small_thing.py", "")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: small-thing\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
END
venv/bin/python wheel.py
echo ./small_thing-1.0-py3-none-any.whl > requirements.in
venv/bin/uv pip compile --quiet --offline --no-index --no-header --no-annotate requirements.in -o lock.txt

try() {
  name=$1
  shift
  if "$@" > "$name.log" 2>&1; then echo "$name: taken"; else echo "$name: refused"; fi
}
expected="lock: ./small_thing-1.0-py3-none-any.whl
uv -r: taken
uv -c: refused
pip -c: taken
reason: Unnamed requirements are not allowed as constraints"
seen=$(
  echo "lock: $(cat lock.txt)"
  try "uv -r" venv/bin/uv pip install --python venv/bin/python --offline --no-index -r lock.txt
  try "uv -c" venv/bin/uv pip install --python venv/bin/python --offline --no-index -r lock.txt -c lock.txt
  try "pip -c" venv/bin/python -m pip install --no-index -r lock.txt -c lock.txt
  echo "reason: $(grep -o 'Unnamed requirements are not allowed as constraints' 'uv -c.log')"
)
echo "$seen"
[ "$seen" = "$expected" ] || { cat ./*.log >&2; echo "changed" >&2; exit 1; }
