#!/bin/sh
# apache-airflow-core 3.3.2: two symbolic links to one folder are taken for an endless loop, and no DAG file is found.
#
# Expected: the folder is read by both names, or once; a loop is a link to a folder above it. Layouts with two such links
#           are common: `current -> releases/7` beside `releases/7`, or two teams that share a folder of modules.
# Observed: the listing of the whole DAG folder raises RuntimeError ("Detected recursive loop"), also for files elsewhere in
#           it, as each real path may be met once only. One link to a folder that is outside is followed.
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

root = Path(sys.argv[1])
source = "from airflow.sdk import DAG\nDAG('one')\n"


def listed(name, links):
    folder, outside = root / name / "dags", root / name / "outside"
    for made in (folder / "releases/7", outside):
        made.mkdir(parents=True)
        (made / "one.py").write_text(source)
    (folder / "other.py").write_text(source)
    for link, target in links.items():
        (folder / link).symlink_to({"releases/7": folder / "releases/7", "outside": outside}[target])
    try:
        found = get_importer_registry().list_dag_files(str(folder), safe_mode=False)
        return sorted(str(Path(path).relative_to(folder)) for path in found)
    except RuntimeError as error:
        return f"RuntimeError: {str(error)[:23]}"


print("one link:", listed("a", {"shared": "outside"}))
print("a release:", listed("b", {"current": "releases/7"}))
print("two links:", listed("c", {"one": "outside", "two": "outside"}))
END
expected=$(cat <<'END'
one link: ['other.py', 'releases/7/one.py', 'shared/one.py']
a release: RuntimeError: Detected recursive loop
two links: RuntimeError: Detected recursive loop
END
)
seen=$(AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" "$folder/trees" 2>"$folder/errors") || true
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
