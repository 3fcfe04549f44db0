"""The home of a container: private, and with what functions that are steps of the image wrote."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import pytest

from local_modal import LocalModal

APP = """
import os
from pathlib import Path
import modal

app = modal.App("homes")
OUTSIDE = Path({outside!r})

def download(name):
    Path("~/.cache/lm").expanduser().mkdir(parents=True, exist_ok=True)
    Path("~/.cache/lm/" + name).expanduser().write_text("in the home")
    Path("weights-" + name).write_text("beside the code")
    print("downloading", name, flush=True)

def improve():
    Path("weights-a").write_text(Path("weights-a").read_text() + ", improved")
    Path.home().joinpath(".cache/lm/b").unlink()

def fail(): Path("weights-a").write_text("broken"); raise ValueError("no more")

base = modal.Image.debian_slim()
models = base.run_function(download, args=["a"]).run_function(download, args=["b"]).run_function(improve)
worked = base.workdir("/lm-app").run_function(download, args=["w"])

def look(*paths):
    def read(path): return path.read_text() if path.exists() else None
    return {{path: read(Path(path).expanduser()) for path in paths}}

@app.function(image=models)
def stored(): return look("~/.cache/lm/a", "~/.cache/lm/b", "/root/weights-a", "weights-b", "weights-w")
@app.function(image=worked)
def in_folder(): return [os.getcwd(), look("/lm-app/weights-w", "~/.cache/lm/w", "weights-a")]
@app.function(max_inputs=1, image=models, enable_memory_snapshot={snapshots})
def write(n):
    seen = look("~/mine", "mine", "~/.lm-secret", "~/.cache/lm/a")
    for path in ("~/mine", "/root/.cache/mine", str(OUTSIDE / ".cache/mine"), str(OUTSIDE / "mine")):
        Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
        Path(path).expanduser().write_text(str(n))
    return [os.environ["HOME"], str(Path.home()), seen, (OUTSIDE / "seen").read_text(),
            sorted(os.listdir(OUTSIDE.parent))]
volume = modal.Volume.from_name("homes", create_if_missing=True)
@app.function(image=models, volumes={{"/root/.cache/kept": volume}})
def keep():
    Path("~/.cache/kept/file").expanduser().write_text("kept")
    volume.commit()
    return look("~/.cache/lm/a")
"""


def deploy(server: LocalModal, outside: Path, snapshots: bool = False, more: str = "") -> tuple[int, str]:
    path = server.root / "homes.py"
    path.write_text(textwrap.dedent(APP.format(outside=str(outside), snapshots=snapshots)) + more)
    done = server.modal("deploy", path, PYTHONDONTWRITEBYTECODE="1")
    return done.returncode, done.stdout + done.stderr


def call(server: LocalModal, *calls: str) -> Any:
    return server.sdk(f"fn = lambda name: modal.Function.from_name('homes', name)\nanswer([{', '.join(calls)}])")


def test_files_written_by_a_build_step_stay_in_the_image(local_modal: LocalModal) -> None:
    outside = local_modal.root / "user"
    outside.mkdir()
    code, said = deploy(local_modal, outside)
    assert code == 0, said
    assert said.count("downloading") == 3, said
    expected = {
        "~/.cache/lm/a": "in the home",
        "~/.cache/lm/b": None,
        "/root/weights-a": "beside the code, improved",
        "weights-b": "beside the code",
        "weights-w": None,
    }
    here = {"/lm-app/weights-w": "beside the code", "~/.cache/lm/w": "in the home", "weights-a": None}
    calls = "fn('stored').remote()", "fn('in_folder').remote()", "fn('keep').remote()"
    assert call(local_modal, *calls) == [expected, ["/lm-app", here], {"~/.cache/lm/a": "in the home"}]
    assert local_modal.sdk("answer(b''.join(modal.Volume.from_name('homes').read_file('file')).decode())") == "kept"

    # Neither a deployment that finds it built, nor a new server, nor a step that fails loses it.
    code, said = deploy(local_modal, outside)
    assert code == 0 and "downloading" not in said, said
    local_modal.stop()
    local_modal.start()
    broken = "@app.function(image=models.run_function(fail))\ndef never(): pass\n"
    code, said = deploy(local_modal, outside, more=broken)
    assert code != 0 and "no more" in said
    assert call(local_modal, calls[0]) == [expected]
    assert len(list((local_modal.data / "homes").iterdir())) == 4, "only what images refer to"


def test_containers_never_write_to_the_users_home(local_modal: LocalModal, monkeypatch: Any) -> None:
    outside = local_modal.root / "user"
    outside.mkdir()
    (outside / "seen").write_text("readable")
    local_modal.stop()
    monkeypatch.setenv("HOME", str(outside))
    local_modal.start()
    for snapshots in (False, True):
        code, said = deploy(local_modal, outside, snapshots)
        assert code == 0, said
        call(local_modal, "fn('write').remote(0)")
        # A fork server runs now; what others make beside the home later is seen.
        (local_modal.root / f"later-{snapshots}").touch()
        for home, path, seen, read, beside in call(local_modal, *(f"fn('write').remote({n})" for n in range(3))):
            assert f"later-{snapshots}" in beside
            assert (home, path, read) == ("/root", "/root", "readable")
            assert seen == {"~/mine": None, "mine": None, "~/.lm-secret": None, "~/.cache/lm/a": "in the home"}
        assert sorted(path.name for path in outside.iterdir()) == ["seen"]


def test_users_hidden_files_are_not_visible_in_containers(local_modal: LocalModal) -> None:
    home = Path("/root")
    secret, name = home / ".lm-secret", f"lm-{os.getpid()}"
    if not os.access(home, os.W_OK):
        pytest.skip("the home of this user is elsewhere")
    secret.write_text("a token")
    try:
        code, said = deploy(local_modal, home, more=f"\n@app.function()\ndef mark(): Path('{name}').touch()\n")
        assert code == 0, said
        (home / "seen").write_text("readable")
        answered = call(local_modal, "fn('write').remote(1)", "fn('mark').remote()")[0]
        assert answered[2]["~/.lm-secret"] is None
        assert not (home / name).exists() and not (home / "mine").exists()
    finally:
        secret.unlink()
        (home / "seen").unlink(missing_ok=True)


def test_server_files_and_socket_can_be_in_the_home(local_modal: LocalModal, monkeypatch: Any) -> None:
    local_modal.stop()
    outside = local_modal.root / "user"
    outside.mkdir()
    (outside / "seen").write_text("readable")
    monkeypatch.setenv("HOME", str(local_modal.root))
    # As the daemon has them by default: beside the data folder, not in it.
    local_modal.start("--unix", str(outside / "modal.sock"))
    for snapshots in (False, True):
        code, said = deploy(local_modal, outside, snapshots)
        assert code == 0, said
        expected = {"~/.cache/lm/a": "in the home"}
        assert [call(local_modal, "fn('keep').remote()") for _ in range(2)] == [[expected]] * 2
        assert call(local_modal, "fn('write').remote(0)")[0][0] == "/root"
