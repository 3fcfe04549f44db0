"""Features of the SDK that Local Modal refuses when they are deployed, and what else it tells before anything runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_modal import LocalModal, binary

PRELUDE = """
import modal
import modal.experimental
app = modal.App("refused")
bucket = modal.CloudBucketMount("a-bucket", secret=modal.Secret.from_dict({"AWS_ACCESS_KEY_ID": "a"}))
"""
REFUSED = {
    "sessions": """
        @app.server()
        @modal.sessioned()
        class Server:
            @modal.enter()
            def begin(self): pass
    """,
    "experimental.http_server": """
        @app.cls()
        @modal.experimental.http_server(8000, proxy_regions=["us-east"])
        class Server:
            @modal.enter()
            def begin(self): pass
    """,
    "server of an image's own command": """
        from modal._server import _DirectServerCls
        app.server()(_DirectServerCls)
    """,
    "CloudBucketMount": """
        @app.function(volumes={"/bucket": bucket})
        def f(): pass
    """,
    "clustered": """
        @app.function()
        @modal.experimental.clustered(size=2)
        def f(): pass
    """,
    "i6pn": """
        @app.function(i6pn=True)
        def f(): pass
    """,
    "block_network": """
        @app.cls(block_network=True)
        class C:
            @modal.method()
            def f(self): pass
    """,
    "restrict_modal_access": """
        @app.function(restrict_modal_access=True)
        def f(): pass
    """,
    "ProxyGet": """
        @app.function(proxy=modal.Proxy.from_name("p"))
        def f(): pass
    """,
}
OPTIONS = """
with open("/dev/null"): pass
C = modal.Cls.from_name("classes", "C")
bucket = modal.CloudBucketMount("a-bucket", secret=modal.Secret.from_dict({"AWS_ACCESS_KEY_ID": "a"}))
try: C.with_options(volumes={"/bucket": bucket})().f.remote()
except Exception as error: answer(str(error))
"""


@pytest.fixture(scope="module")
def refusing() -> Iterator[LocalModal]:
    """A server whose apps are never published."""
    server = LocalModal()
    server.start()
    yield server
    server.close()


def deploy(server: LocalModal, app: str) -> tuple[int, str]:
    path = server.root / "app.py"
    path.write_text(app)
    done = server.modal("deploy", path, PYTHONDONTWRITEBYTECODE="1")
    text = (done.stdout + done.stderr).translate(str.maketrans("│╭╮╰╯─", "      "))
    return done.returncode, " ".join(text.split())


@pytest.mark.parametrize("feature", REFUSED)
def test_unsupported_features_are_refused_by_name_at_deployment(refusing: LocalModal, feature: str) -> None:
    lines = REFUSED[feature].splitlines()
    code, said = deploy(refusing, PRELUDE + "\n".join(line[8:] for line in lines) + "\n")
    assert code != 0, said
    assert feature in said, said
    assert "Local Modal does not" in said, said


def test_unsupported_class_options_are_refused(refusing: LocalModal) -> None:
    app = "import modal\napp = modal.App('classes')\n@app.cls()\nclass C:\n @modal.method()\n def f(self): return 1\n"
    code, said = deploy(refusing, app)
    assert code == 0, said
    assert "CloudBucketMount" in refusing.sdk(OPTIONS)


def test_env_output_selects_the_server_from_any_folder(tmp_path: Path) -> None:
    server = LocalModal()
    server.data = server.root / "da ta'"
    server.start()
    try:
        script = """
        set -e
        eval "$("$1" env --data-dir "$2")"
        cd "$3"
        "$1" status --json
        echo '[{"rpc": "DictGet", "action": "disconnect"}]' | "$1" faults -
        "$1" faults
        """
        arguments = ["sh", "-c", script, "sh", binary(), server.data, tmp_path]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert str(server.data.resolve()) in json.loads(done.stdout.partition("\n[")[0])["data_dir"]
        assert '"DictGet"' in done.stdout
    finally:
        server.close()


@pytest.mark.parametrize(
    ("shim", "said"),
    [
        ('#!/bin/sh\nlm-version-manager exec python3 "$@"\n', "lm-version-manager"),
        ("#!/bin/sh\necho no version is set\nexit 3\n", "it printed: no version is set"),
        ("#!/bin/sh\nexit 3\n", "it printed nothing"),
        ("#!/bin/sh\necho hello\n", "it printed: hello"),
    ],
)
def test_broken_interpreter_is_reported_with_its_output(local_modal: LocalModal, shim: str, said: str) -> None:
    local_modal.stop()
    python = local_modal.root / "python3"
    python.write_text(shim)
    python.chmod(0o755)
    local_modal.python = str(python)
    local_modal.start()
    code, told = deploy(local_modal, "import modal\napp = modal.App('a')\n@app.function()\ndef f(): pass\n")
    assert code != 0
    assert said in told and "python3 does not run" in told and "--python" in told, told
