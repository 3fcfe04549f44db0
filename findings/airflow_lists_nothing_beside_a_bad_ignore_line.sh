#!/bin/sh
# apache-airflow-core 3.3.2: one line of an `.airflowignore` that is no pattern leaves out every DAG file.
#
# Expected: the line is reported as a fault of that file, and the others count, as git does with a `.gitignore`.
# Observed: with the default syntax (glob) the listing of the folder raises what the pattern's compiler raises, so that the
#           DAG processor finds no file of the bundle. With the syntax `regexp` such a line is skipped with a warning.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
  apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-standard==1.21.0

cat > "$folder/finding.py" <<'END'
from pathlib import Path
import sys

from airflow.dag_processing.importers import get_importer_registry

folder = Path(sys.argv[1])
folder.mkdir()
(folder / "one.py").write_text("from airflow.sdk import DAG\nDAG('one')\n")


def listed(line):
    (folder / ".airflowignore").write_text(line + "\n")
    try:
        return [Path(path).name for path in get_importer_registry().list_dag_files(str(folder), safe_mode=False)]
    except Exception as error:
        return type(error).__name__


for line in ("other.py", "[z-a]", "!"):
    print(f"with {line!r}: {listed(line)}")
END
expected=$(cat <<'END'
with 'other.py': ['one.py']
with '[z-a]': error
with '!': GitIgnorePatternError
END
)
seen=$(AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" "$folder/dags" 2>"$folder/errors") || true
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
