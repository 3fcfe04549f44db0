"""Where Local Modal finds uv, and how it gets its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest

from local_modal import LocalModal
from wheels import make_wheel

UV = version("uv")
"""That of the tests' environment, and that which the server installs."""
APP = """
import modal
image = modal.Image.debian_slim().pip_install("{package}")
app = modal.App("{package}")

@app.function(image=image)
def number():
    import {package}
    return {package}.VERSION
"""


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalModal]:
    """A server that is not started yet, on a machine without uv and without a package index."""
    server = LocalModal()
    interpreter = server.root / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", interpreter], check=True)
    (packages,) = interpreter.glob("lib/python*/site-packages")
    (theirs,) = Path(sys.prefix).glob("lib/python*/site-packages")
    for item in theirs.iterdir():
        if item.name != "uv" and not item.name.startswith("uv-"):
            (packages / item.name).symlink_to(item)
    server.python = str(interpreter / "bin/python")
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    programs = [Path(folder) for folder in os.environ["PATH"].split(":")]
    monkeypatch.setenv("PATH", ":".join(str(folder) for folder in programs if not (folder / "uv").exists()))
    monkeypatch.setenv("HOME", str(server.root / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    yield server
    server.close()


@pytest.fixture
def index(without_uv: LocalModal) -> Path:
    """A folder of wheels: packages of images, and the uv of the tests' environment."""
    folder = without_uv.root / "wheels"
    make_wheel(folder, "lm_one", "1.0")
    make_wheel(folder, "lm_two", "2.0")
    name = f"uv-{UV}"
    files = {
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: uv\nVersion: {UV}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    program = f"{name}.data/scripts/uv"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        wheel.write(Path(sys.prefix, "bin/uv"), program)
        wheel.writestr(f"{name}.dist-info/RECORD", "".join(f"{file},,\n" for file in (*files, program)))
    return folder


@pytest.fixture
def simple_index(index: Path) -> Iterator[str]:
    """The URL of a package index on this machine."""
    for wheel in index.glob("*.whl"):
        project = index / "simple" / wheel.name.partition("-")[0].replace("_", "-")
        project.mkdir(parents=True)
        (project / wheel.name).symlink_to(wheel)

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(index))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


def deploy(server: LocalModal, package: str) -> str:
    """Deploys an app that needs a package, and returns what was printed."""
    path = server.root / f"{package}_app.py"
    path.write_text(APP.format(package=package))
    done = server.deploy(path)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def number(server: LocalModal, package: str) -> object:
    return server.sdk(f"answer(modal.Function.from_name({package!r}, 'number').remote())")


def installations(server: LocalModal) -> int:
    return server.log.read_text().count(f"installing uv=={UV} into {server.data.resolve()}/uv")


def test_uv_is_installed_once_for_all_builds(
    without_uv: LocalModal, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = without_uv
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    # A setting of the user's that would have pip install elsewhere.
    monkeypatch.setenv("PIP_TARGET", str(server.root / "elsewhere"))
    # A program of that name that is none, such as a shim without its target.
    shim = server.root / "shims/uv"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'uv: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    # What an installation leaves that was cut off.
    half = server.data / "uv/partial/bin/uv"
    half.parent.mkdir(parents=True)
    half.write_text("#!/bin/sh\nexit 1\n")
    half.chmod(0o755)
    server.start()
    assert server.sdk("answer(modal.Dict.from_name('d', create_if_missing=True).len())") == 0
    assert installations(server) == 0, "it is not needed before the first package"
    with ThreadPoolExecutor() as threads:
        for printed in threads.map(lambda package: deploy(server, package), ("lm_one", "lm_two")):
            assert printed.startswith("0 "), printed + server.log.read_text()
    assert (number(server, "lm_one"), number(server, "lm_two")) == ("1.0", "2.0")
    assert installations(server) == 1
    assert [path.name for path in (server.data / "uv").iterdir()] == [f"uv-{UV}"]
    assert not (server.root / "elsewhere").exists()
    # It is there for the next server, even if nothing can be installed any more.
    server.stop()
    shutil.rmtree(server.data / "images")
    index.joinpath(f"uv-{UV}-py3-none-any.whl").unlink()
    server.start()
    assert number(server, "lm_one") == "1.0"
    assert installations(server) == 1


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_uv_is_installed_from_the_configured_index(
    variable: str, without_uv: LocalModal, simple_index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv(variable, simple_index)
    without_uv.start()
    printed = deploy(without_uv, "lm_one")
    assert printed.startswith("0 "), printed + without_uv.log.read_text()
    assert printed.count(f"installing uv=={UV} into") == 1, printed
    assert number(without_uv, "lm_one") == "1.0"
    assert installations(without_uv) == 1


def test_missing_index_is_reported_with_a_hint(without_uv: LocalModal, index: Path) -> None:
    without_uv.start()
    printed = deploy(without_uv, "lm_one")
    assert printed.startswith("1 "), printed
    said = " ".join(printed.translate(str.maketrans("│╭╮╰╯─", "      ")).split())
    assert f"Installing uv=={UV} into {without_uv.data.resolve()}/uv failed" in said
    assert f"No matching distribution found for uv=={UV}" in said
    assert f"`{without_uv.python} -m pip install uv`; then deploy again" in said
    # Whoever follows it can deploy at once.
    home = without_uv.root / "home/.local/bin"
    home.mkdir(parents=True)
    (home / "uv").symlink_to(Path(sys.prefix, "bin/uv"))
    (without_uv.root / "lm_one_app.py").unlink()
    app = APP.replace('"{package}")\napp', '"{package}", extra_options="--no-index", find_links=LINKS)\napp')
    path = without_uv.root / "again.py"
    path.write_text(f"LINKS = {str(index)!r}\n" + app.format(package="lm_one"))
    done = without_uv.deploy(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert number(without_uv, "lm_one") == "1.0"
    assert installations(without_uv) == 1, "the second deployment found one"
