"""The checked-in table of implemented RPCs is true."""

from __future__ import annotations

import json
import subprocess

import modal

from coverage_table import IMPLEMENTED, METHODS, PARTLY, TABLE, UNIMPLEMENTED, implemented_by, read_table
from local_modal import LocalModal, binary


def test_coverage_table_is_current(local_modal: LocalModal) -> None:
    table = read_table()
    refresh = "; run `make coverage-table`"
    assert set(table) == set(METHODS), "the SDK's RPCs are others" + refresh
    assert f"Modal SDK {modal.__version__}" in TABLE.read_text(), "the table is of another SDK" + refresh
    implemented = implemented_by(local_modal)
    listed = {rpc for rpc, (state, _) in table.items() if state != UNIMPLEMENTED}
    assert listed == implemented, f"not as listed: {sorted(listed ^ implemented)}" + refresh
    limits = {rpc: state for rpc, (state, _) in table.items() if state not in (IMPLEMENTED, UNIMPLEMENTED)}
    assert limits == {rpc: f"partly: {limit}" for rpc, limit in PARTLY.items()}, "other limits" + refresh
    untested = sorted(rpc for rpc in listed if not table[rpc][1])
    assert not untested, f"no test calls {untested}" + refresh


def test_unimplemented_rpcs_are_named_and_counted(local_modal: LocalModal) -> None:
    script = """
    app = modal.App.lookup("sandboxes", create_if_missing=True)
    errors = []
    for attempt in (lambda: modal.Sandbox.create("true", app=app), lambda: modal.Sandbox.from_name("sandboxes", "one")):
        try: attempt()
        except Exception as error: errors.append(f"{type(error).__name__}: {error}")
    answer(errors)
    """
    for error in local_modal.sdk(script):
        assert "Local Modal does not implement" in error and "Sandbox" in error
    command = [binary(), "status", "--data-dir", local_modal.data, "--json"]
    rpcs = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["rpcs"]
    assert rpcs["AppGetOrCreate"] == 1
    assert rpcs["AuthTokenGet"] >= 1, rpcs
