"""Steps of images that Local Modal skips, and the errors that name them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from local_modal import LocalModal

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
APP = """
import ctypes, os, subprocess
import modal

RAN = {ran!r}
app = modal.App("skipping")
tools = modal.Image.debian_slim().apt_install("lm-tool", "liblmabsent1").run_commands(
    f"touch {{RAN}}", "curl -O https://localhost/lm_weights.bin").env({{"KEPT": "yes"}})
cuda = modal.Image.from_registry("nvidia/cuda:12.4.0-devel-ubuntu22.04", add_python={python!r}).pip_install("httpx")
files = modal.Image.debian_slim().dockerfile_commands(
    "COPY --from=busybox /bin/sh /lm/sh", "ADD https://localhost/lm.txt /lm.txt",
    "RUN <<EOF", f"touch {{RAN}}", "EOF", "ENV AFTER=here", "FROM debian AS second", "RUN lm-make && lm-install")
mamba = modal.Image.micromamba().micromamba_install("lm-solver")

@app.function(image=tools)
def program(): subprocess.run(["lm-tool"])
@app.function(image=tools)
def unnamed(): os.execvp("lmother", ["lmother"])
@app.function(image=tools)
def shell(): subprocess.run("lm-tool --version", shell=True, check=True)
@app.function(image=tools)
def library(): ctypes.CDLL("liblmabsent.so.1")
@app.function(image=tools)
def extension():
    raise ImportError("liblmabsent.so.1: cannot open shared object file: No such file or directory")
@app.function(image=tools)
def wrapped():
    try: subprocess.run(["lm-tool"])
    except FileNotFoundError as error: raise RuntimeError("no conversion") from error
@app.function(image=tools)
def told(): raise LookupError("lm-tool is not installed or not on the PATH")
@app.function(image=tools)
def download(): open("/lm_weights.bin")
@app.function(image=tools)
def ordinary(): open("no-such.txt")
@app.function(image=tools)
def other(): raise ValueError("the size is missing")
@app.function(image=tools)
def caught():
    try: subprocess.run(["lm-tool"])
    except FileNotFoundError as error: return [str(error), os.environ["KEPT"], os.path.exists(RAN)]
@app.function(image=cuda)
def compiler(): subprocess.run(["lm-nvcc"])
@app.function(image=cuda)
def torch():
    import httpx
    import lm_torch
@app.function(image=files)
def made(): return [os.environ["AFTER"], os.path.exists("/lm/sh")]
@app.function(image=mamba)
def solve(): import lm_solver
@app.cls(image=tools)
class Server:
    @modal.enter()
    def begin(self): subprocess.run(["lm-tool"])
    @modal.method()
    def answer(self): return 1
"""
ASK = """
import traceback
def ask(name):
    try: modal.Function.from_name("skipping", name).remote()
    except Exception as error: return [type(error).__name__, "".join(traceback.format_exception(error)), str(error)]
answer([ask(name) for name in {names!r}])
"""
APT, CURL = "RUN apt-get install -y lm-tool liblmabsent1", "RUN curl -O https://localhost/lm_weights.bin"
CUDA = "FROM nvidia/cuda:12.4.0-devel-ubuntu22.04"
NAMED = {
    "program": ("FileNotFoundError", APT),
    "unnamed": ("FileNotFoundError", "these steps of the image"),
    "shell": ("CalledProcessError", APT),
    "library": ("OSError", APT),
    "extension": ("ImportError", APT),
    "wrapped": ("RuntimeError", APT),
    "told": ("LookupError", APT),
    "download": ("FileNotFoundError", CURL),
    "compiler": ("FileNotFoundError", CUDA),
    "torch": ("ModuleNotFoundError", CUDA),
    "ordinary": ("FileNotFoundError", None),
    "other": ("ValueError", None),
}


@pytest.fixture(scope="module")
def skipping() -> Iterator[LocalModal]:
    """A server that skips steps, with the app deployed."""
    server = LocalModal()
    server.start("--images=skip")
    yield server
    server.close()


def deploy(server: LocalModal) -> str:
    path = server.root / "skipping.py"
    path.write_text(textwrap.dedent(APP.format(ran=str(server.root / "ran"), python=PYTHON)))
    done = server.modal("deploy", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).translate(str.maketrans("│╭╮╰╯─", "      ")).split())


def failures(server: LocalModal, *names: str) -> dict[str, Any]:
    return dict(zip(names, server.sdk(ASK.format(names=names)), strict=True))


def test_each_deployment_warns_once_and_names_each_skipped_step(skipping: LocalModal) -> None:
    for _ in range(2):
        said = deploy(skipping)
        assert said.count("Local Modal skipped these steps") == 1, said
        steps = [
            APT,
            CURL,
            CUDA,
            "COPY --from=busybox /bin/sh /lm/sh",
            "ADD https://localhost/lm.txt /lm.txt",
            "RUN <<EOF",
        ]
        for step in [*steps, "FROM debian AS second", "RUN lm-make && lm-install", "lm-solver"]:
            assert said.count(step) == 1, (step, said)
        assert "RUN apt-get update" not in said, "what the SDK adds of its own is not named"
    made = skipping.sdk("answer(modal.Function.from_name('skipping', 'made').remote())")
    assert made == ["here", False]
    assert not (skipping.root / "ran").exists()


def test_errors_name_the_skipped_step_that_caused_them(skipping: LocalModal) -> None:
    deploy(skipping)
    for name, (kind, text, message) in failures(skipping, *NAMED).items():
        expected_kind, step = NAMED[name]
        assert kind == expected_kind, (name, text)
        assert ("Local Modal skipped" in text) == bool(step), (name, text)
        assert step is None or step in text, (name, text)
        if step == APT:
            assert CURL not in text, "only the step that names what is missing"
        if kind in ("FileNotFoundError", "OSError", "ImportError") and step:
            assert "Local Modal skipped" in message, (name, message)
    caught, kept, ran = skipping.sdk("answer(modal.Function.from_name('skipping', 'caught').remote())")
    assert (caught, kept, ran) == ("[Errno 2] No such file or directory: 'lm-tool'", "yes", False)
    begun = skipping.sdk(
        """
        try: modal.Cls.from_name('skipping', 'Server')().answer.remote()
        except Exception as error: answer(str(error))
        """
    )
    assert APT in begun
    assert "micromamba" in failures(skipping, "solve")["solve"][1]


def test_steps_are_refused_by_default_and_the_error_names_the_option(local_modal: LocalModal) -> None:
    for step in ("apt_install('lm-tool')", "dockerfile_commands('RUN <<EOF', 'true', 'EOF')"):
        path = local_modal.root / "refused.py"
        image = f"modal.Image.debian_slim().{step}"
        path.write_text(f"import modal\napp = modal.App('refused')\n@app.function(image={image})\ndef f(): pass\n")
        done = local_modal.modal("deploy", path)
        assert done.returncode != 0
        assert "--images=skip" in done.stdout + done.stderr
