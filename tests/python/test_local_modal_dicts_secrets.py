"""The commands for Dicts and Secrets, their limits and their errors, on Local Modal."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from local_modal import LocalModal


def run(server: LocalModal, *arguments: object, code: int = 0) -> str:
    done = server.modal(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_dict_commands_create_read_and_delete(sample_modal: LocalModal) -> None:
    def dicts(*arguments: object, code: int = 0) -> str:
        return run(sample_modal, "dict", *arguments, code=code)

    dicts("create", "cli")
    dicts("create", "cli")
    sample_modal.sdk("d = modal.Dict.from_name('cli'); d['k'] = 'v'; d['n'] = 1")
    assert dicts("get", "cli", "k").strip() == "v"
    items = {row["key"]: row["value"] for row in json.loads(dicts("items", "cli", "--json"))}
    assert items == {"k": "v", "n": 1}
    assert "cli" in {row["name"] for row in json.loads(dicts("list", "--json"))}
    dicts("clear", "cli", "--yes")
    assert "v" not in dicts("items", "cli", "--json")
    dicts("delete", "cli", "--yes")
    assert "does not exist" in dicts("get", "cli", "k", code=1)
    dicts("delete", "cli", "--yes", "--allow-missing")


def test_large_dicts_survive_and_oversized_updates_are_refused(local_modal: LocalModal) -> None:
    script = """
    import hashlib
    d = modal.Dict.from_name("limits", create_if_missing=True)
    large = os.urandom(20 << 20)
    d["large"] = large
    def why(call):
        try: call()
        except Exception as error: return type(error).__name__, "at most" in str(error)
    d.update({str(n): n for n in range(10_000)})
    with modal.Dict.ephemeral() as e:
        e["a"] = 1
        ephemeral = [e["a"], e.len(), "b" in e, failure(lambda: e["b"]), failure(lambda: e.pop("b")), e.pop("b", 2)]
    many = why(lambda: d.update({str(n): n for n in range(10_001)}))
    answer([hashlib.sha256(large).hexdigest(), d.len(), many, ephemeral,
            failure(lambda: d.put("too large", bytes(105 << 20)))])
    """
    digest, length, many, ephemeral, too_large = local_modal.sdk(script)
    assert (length, many) == (10_001, ["InvalidError", True])
    assert ephemeral == [1, 1, False, "KeyError", "KeyError", 2]
    assert too_large == "RequestSizeError"
    local_modal.stop(signal.SIGKILL)
    local_modal.start()
    again = """
    import hashlib
    d = modal.Dict.from_name("limits")
    answer([hashlib.sha256(d["large"]).hexdigest(), d.len(), modal.Dict.from_id(d.object_id)["17"]])
    """
    assert local_modal.sdk(again) == [digest, 10_001, 17]


def test_secret_commands_create_list_and_delete(sample_modal: LocalModal, tmp_path: Path) -> None:
    def secrets(*arguments: object, code: int = 0) -> str:
        return run(sample_modal, "secret", *arguments, code=code)

    secrets("create", "cli", "A=1", "B=hidden")
    assert "exists" in secrets("create", "cli", "A=2", code=1)
    secrets("create", "cli", "C=3", "--force")
    (tmp_path / "values.json").write_text('{"D": "4"}')
    secrets("create", "from-json", "--from-json", tmp_path / "values.json")
    listed = secrets("list", "--json")
    assert {"cli", "from-json"} <= {row["name"] for row in json.loads(listed)}
    assert "hidden" not in listed
    script = """
    def keys(name, *required):
        return failure(lambda: modal.Secret.from_name(name, required_keys=list(required)).hydrate())
    secret = modal.Secret.from_name("cli")
    secret.hydrate()
    secret.update({"E": "5"})
    answer([keys("cli", "C"), keys("cli", "A"), keys("cli", "C", "E"), secret.info(refresh=True).name])
    """
    assert sample_modal.sdk(script) == [None, "NotFoundError", None, "cli"]
    secrets("delete", "cli", "--yes")
    secrets("delete", "cli", "--yes", code=1)


@pytest.mark.parametrize("how", ["dotenv", "environment"])
def test_local_secrets_reach_the_container(sample_modal: LocalModal, tmp_path: Path, how: str) -> None:
    (tmp_path / ".env").write_text("FROM_FILE=yes\n")
    source = f"from_dotenv({str(tmp_path)!r})" if how == "dotenv" else 'from_local_environ(["FROM_FILE"])'
    script = f"""
    import modal
    app = modal.App()
    @app.function(secrets=[modal.Secret.{source}], serialized=True)
    def read(): return os.environ["FROM_FILE"]
    with app.run(): answer(read.remote())
    """
    assert sample_modal.sdk(script, FROM_FILE="yes") == "yes"
