#!/bin/sh
# svcs 26.2.0 beside aiohttp 3.14.5: `import svcs` imports aiohttp.
#
# Airflow's Execution API needs svcs for FastAPI, and Modal's SDK needs aiohttp. This affects any interpreter with both,
# such as that of an Airflow task on Modal.
#
# Expected: svcs, which has a module for each web framework, imports a framework when its module is imported.
# Observed: `import svcs` tries to import all of them and keeps those that are installed. aiohttp creates two TLS
#           contexts when it is imported and reads the system's certificates for each, which takes most of the time.
# Output seen: "aiohttp is loaded: True"; without aiohttp "aiohttp is loaded: False".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check svcs==26.2.0 aiohttp==3.14.5

loaded() {
  "$folder/venv/bin/python" -c "
import sys
$1
import svcs
print('aiohttp is loaded:', sys.modules.get('aiohttp') is not None)"
}

with=$(loaded '')
without=$(loaded 'sys.modules["svcs.aiohttp"] = None')
echo "$with"
echo "$without (after svcs.aiohttp was made unavailable)"
[ "$with" = 'aiohttp is loaded: True' ] || { echo "changed: svcs does not import aiohttp by itself" >&2; exit 1; }
[ "$without" = 'aiohttp is loaded: False' ] || { echo "changed: aiohttp is imported some other way" >&2; exit 1; }
