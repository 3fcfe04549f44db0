"""Airflow is imported quickly, and the process is as usual afterwards."""

from __future__ import annotations

import subprocess
import sys

from environment import FUNCTIONS

SCRIPT = """
import gc, sys
from airflow_serverless.imports import quick_imports

try:
    with quick_imports():
        assert not gc.isenabled()
        import svcs
        import svcs.fastapi
        assert "aiohttp" not in sys.modules, "the import of svcs is not shortened any more"
        raise LookupError
except LookupError:
    pass
assert gc.isenabled() and gc.get_freeze_count(), "what was imported is collected"
import svcs.aiohttp
assert svcs.aiohttp.__name__ == "svcs.aiohttp" and "aiohttp" in sys.modules
gc.disable()
with quick_imports():
    pass
assert not gc.isenabled(), "it was off before"
"""


def test_quick_imports_restore_the_process_after_an_error() -> None:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, env={"PYTHONPATH": str(FUNCTIONS)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
