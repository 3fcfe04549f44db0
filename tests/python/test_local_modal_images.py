"""Images of Local Modal: what the unmodified SDK's recipes lead to."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local_modal import LocalModal, wait_until
from wheels import make_wheel

PRELUDE = """
import os, sys
from pathlib import Path
import modal
HERE = Path(__file__).parent
WHEELS = str(HERE / "wheels")
LOCAL = f"--no-index --find-links {WHEELS}"
base = modal.Image.debian_slim()
app = modal.App("imaged")
"""


@pytest.fixture(scope="module")
def builder() -> Iterator[LocalModal]:
    """A server for recipes that need no wishes of their own."""
    server = LocalModal()
    server.start()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def wheels(request: pytest.FixtureRequest) -> None:
    for name in ("builder", "local_modal"):
        if name in request.fixturenames:
            folder = request.getfixturevalue(name).root / "wheels"
            make_wheel(folder, "lm_one", "1.0")
            make_wheel(folder, "lm_one", "2.0")
            make_wheel(folder, "lm_two", "1.0", ("lm_one", "httpx"))
            make_wheel(folder, "lm_sdk", "1.0", ("modal",))


def deploy(server: LocalModal, app: str, name: str = "imaged.py", **more: str) -> subprocess.CompletedProcess[str]:
    path = server.root / name
    path.write_text(PRELUDE + textwrap.dedent(app))
    # Versions of an app within one second would be one to Python's cache.
    return server.modal("deploy", path, PYTHONDONTWRITEBYTECODE="1", **more)


def deploy_well(server: LocalModal, app: str, name: str = "imaged.py", **more: str) -> str:
    done = deploy(server, app, name, **more)
    assert done.returncode == 0, done.stdout + done.stderr + server.log.read_text()
    return done.stdout + done.stderr


def refused(server: LocalModal, app: str) -> str:
    """What a deployment that fails says, without the lines and boxes it is put in."""
    done = deploy(server, app)
    assert done.returncode != 0, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).translate(str.maketrans("│╭╮╰╯─", "      ")).split())


def remote(server: LocalModal, *names: str) -> Any:
    calls = ", ".join(f"modal.Function.from_name('imaged', {name!r}).remote()" for name in names)
    return server.sdk(f"answer([{calls}])")


def environments(server: LocalModal) -> list[Path]:
    return sorted(path.parent for path in (server.data / "images").glob("*/complete.json"))


def test_installed_packages_are_not_installed_again(builder: LocalModal) -> None:
    before = environments(builder)
    said = deploy_well(
        builder,
        """
        image = base.uv_pip_install("httpx", "modal").pip_install(f"modal=={modal.__version__}").apt_install()
        @app.function(image=image)
        def where(): return sys.prefix
        """,
    )
    assert "RUN" not in said
    assert environments(builder) == before
    assert remote(builder, "where") == [sys.prefix]


def test_missing_packages_are_installed_into_a_separate_venv(builder: LocalModal) -> None:
    said = deploy_well(
        builder,
        """
        one = base.pip_install("lm_two", find_links=WHEELS, extra_options="--no-index").env({"A": "a b", "B": "$A'"})
        two = base.uv_pip_install("lm_two", extra_options=LOCAL, find_links=WHEELS).uv_pip_install(
            "lm-one<2", extra_options=LOCAL)
        secret = modal.Secret.from_dict({"B": "from the Secret"})

        def look():
            import subprocess, lm_one, httpx
            program = subprocess.run("lm_one", capture_output=True, text=True, check=True).stdout.strip()
            return [lm_one.VERSION, program, lm_one.__file__, httpx.__file__, modal.__file__,
                    os.environ.get("A"), os.environ.get("B"), sys.executable]

        @app.function(image=one)
        def first(): return look()
        @app.function(image=one, secrets=[secret])
        def with_secret(): return look()
        @app.function(image=two)
        def second(): return look()
        """,
    )
    assert "+ lm-two==1.0" in said
    first, with_secret, second = remote(builder, "first", "with_secret", "second")
    assert (first[:2], second[:2]) == (["2.0", "2.0"], ["1.0", "1.0"])
    images = str((builder.data / "images").resolve())
    for answer in (first, second):
        assert answer[2].startswith(images)
        assert answer[7].startswith(images)
        # What the interpreter has is used from there.
        assert answer[3].startswith(sys.prefix) and answer[4].startswith(sys.prefix)
    assert first[5:7] == ["a b", "$A'"]
    assert with_secret[5:7] == ["a b", "from the Secret"]
    assert first[7] == with_secret[7] != second[7]


def test_equal_recipes_share_a_build(builder: LocalModal) -> None:
    app = """
    image = base.{how}("lm_one=={version}", extra_options=LOCAL){more}
    @app.function(image=image)
    def where(): return sys.executable
    """
    deploy_well(builder, app.format(how="uv_pip_install", version="1.0", more=""))
    (first,) = remote(builder, "where")
    before = environments(builder)
    said = deploy_well(builder, app.format(how="uv_pip_install", version="1.0", more=".env({'X': 'y'}).workdir('/w')"))
    assert environments(builder) == before and "RUN" not in said
    assert remote(builder, "where") == [first]
    deploy_well(builder, app.format(how="uv_pip_install", version="1.0", more=""), MODAL_FORCE_BUILD="1")
    (forced,) = remote(builder, "where")
    assert forced != first
    # Without force, what was built last is used.
    deploy_well(builder, app.format(how="uv_pip_install", version="1.0", more=""))
    assert remote(builder, "where") == [forced]
    builder.stop()
    for environment in environments(builder):
        shutil.rmtree(environment)
    builder.start()
    # What was removed is built again when it is needed.
    assert remote(builder, "where") == [forced]


def test_files_variables_and_workdir_are_applied(builder: LocalModal) -> None:
    folder = builder.root / "files"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "sub" / "deep.txt").write_text("deep")
    (folder / "tool.sh").write_text("#!/bin/sh\necho run")
    (folder / "tool.sh").chmod(0o755)
    (folder / "lm_local.py").write_text("VALUE = 'local'")
    (folder / "requirements.txt").write_text("# needed\nlm_one==1.0  # old\n")
    (folder / "Dockerfile").write_text(
        "# a comment\nARG BASE=python:3.11-slim\nFROM ${BASE}\nARG GREETING=none\n"
        "ENV GREETING=$GREETING \\\n  PLACE='/a b'\nCOPY sub/*.txt ./copied/\n"
        "WORKDIR /place\nWORKDIR inner\nRUN pip install 'httpx>=0.1' && true\n"
    )
    deploy_well(
        builder,
        """
        sys.path.insert(0, str(HERE / "files"))
        files = HERE / "files"
        image = (
            base.add_local_file(files / "tool.sh", "/root/bin/tool.sh", copy=True)
            .add_local_dir(files / "sub", "/data/sub", copy=True)
            .add_local_python_source("lm_local", copy=True)
            .pip_install_from_requirements(str(files / "requirements.txt"), WHEELS, extra_options="--no-index")
            .env({"PATH": "/root/bin:$PATH", "PYTHONPATH": "/root/lib"})
            .workdir("/srv/place")
            .entrypoint([]).cmd(["x"]).shell(["/bin/sh", "-c"])
            .add_local_dir(files / "sub", "/root/mounted")
            .add_local_file(files / "lm_local.py", "/root/lib/lm_lib.py")
        ) if modal.is_local() else None

        @app.function(image=image)
        def look():
            import lm_local, lm_lib, lm_one
            root = Path(lm_local.__file__).parent
            return [str(Path.cwd().relative_to(root.parent)), (root / "bin/tool.sh").stat().st_mode & 0o777,
                    (root.parent / "data/sub/deep.txt").read_text(), (root / "mounted/deep.txt").read_text(),
                    lm_local.VALUE, lm_lib.VALUE, lm_one.VERSION, os.environ["PATH"]]

        docker = modal.Image.from_dockerfile(
            files / "Dockerfile", context_dir=files, build_args={"GREETING": "hello"}
        ) if modal.is_local() else None

        @app.function(image=docker)
        def dockered():
            copied = Path("../../copied/deep.txt").read_text()
            return [os.environ["GREETING"], os.environ["PLACE"], Path.cwd().name, copied]
        """,
    )
    look, dockered = remote(builder, "look", "dockered")
    images = str((builder.data / "images").resolve())
    assert look[:7] == ["srv/place", 0o755, "deep", "deep", "local", "local", "1.0"]
    assert look[7].startswith(images) and "/root/bin:" in look[7]
    assert dockered == ["hello", "/a b", "inner", "deep"]


def test_uv_and_pyproject_dependencies_are_installed(builder: LocalModal) -> None:
    project = builder.root / "project"
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'p'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['lm_one==1.0']\n"
        f"[tool.uv]\nno-index = true\nfind-links = [{str(builder.root / 'wheels')!r}]\n"
        "[project.optional-dependencies]\nmore = []\n"
    )
    deploy_well(
        builder,
        """
        synced = base.uv_sync(str(HERE / "project"), extras=["more"])
        listed = base.pip_install_from_pyproject(str(HERE / "project/pyproject.toml"), ["more"], extra_options=LOCAL)
        @app.function(image=synced if modal.is_local() else None)
        def by_sync():
            import lm_one
            return lm_one.VERSION
        @app.function(image=listed if modal.is_local() else None)
        def by_list():
            import lm_one
            return lm_one.VERSION
        """,
    )
    assert remote(builder, "by_sync", "by_list") == ["1.0", "1.0"]


REFUSED = {
    "base.pip_install('lm_none', extra_options=LOCAL)": "lm-none was not found",
    "base.run_commands('echo hello > /tmp/x')": "does not carry out `RUN echo hello > /tmp/x`",
    "base.apt_install('ffmpeg')": "does not carry out `RUN apt-get install -y ffmpeg`",
    "base.run_commands('echo hello')": "modal-local serve --unsafe-run-commands",
    "modal.Image.debian_slim('3.15')": "wants Python 3.15, which is not installed",
    "modal.Image.micromamba().micromamba_install('x')": "does not carry out",
    "modal.Image.from_registry('nvidia/cuda:12.4.0')": "does not carry out `FROM nvidia/cuda:12.4.0`",
    "modal.Image.from_registry('ubuntu:22.04', add_python='3.11')": "FROM ubuntu:22.04",
    "base.dockerfile_commands('FETCH x')": "FETCH is not an instruction of a Dockerfile",
    "base.dockerfile_commands('COPY --from=busybox /bin/sh /sh')": "COPY --from=busybox",
    "base.pip_install('x', extra_options='--target /tmp/x')": "--target is not possible here",
    "base.uv_pip_install('lm_one', extra_options=LOCAL + ' --no-such-option')": "--no-such-option",
}


def test_failed_build_gives_the_reason_and_changes_nothing(builder: LocalModal) -> None:
    deploy_well(builder, "@app.function()\ndef version(): return 1\n")
    for image, message in REFUSED.items():
        said = refused(builder, f"@app.function(image={image})\ndef version(): return 2\n")
        assert message in said, image
    assert remote(builder, "version") == [1]
    assert {path.parent for path in (builder.data / "images").glob("*/*")} <= set(environments(builder))


EVERY_WAY = """
(HERE / "needed.txt").write_text("httpx\\n# and\\nmodal\\n")
needed = str(HERE / "needed.txt")
images = {
    "slim": base,
    "registry": modal.Image.from_registry("python:%d.%d-slim" % sys.version_info[:2]),
    "pip": base.pip_install("httpx", ["modal"]),
    "options": base.pip_install("httpx>=0.1", find_links=WHEELS, pre=True, extra_options="--no-index --no-cache-dir"),
    "requirements": base.pip_install_from_requirements(needed, find_links=WHEELS),
    "uv": base.uv_pip_install("httpx", requirements=[needed], uv_version="0.5.0", extra_options="--no-build"),
    "env": base.env({"A": "it's $HOME \\"quoted\\"", "B": ""}),
    "workdir": base.workdir("/a folder"),
    "ignored": base.entrypoint(["x"]).cmd(["x"]).shell(["/bin/bash", "-c"]),
    "dockerfile": base.dockerfile_commands(["ENV X=1", "RUN pip install httpx", "LABEL a=b", "RUN apt-get update"]),
}
def look():
    return [os.environ.get("A"), os.environ.get("B"), os.getcwd(), sys.prefix]
# So that it is sent by value.
look.__module__ = "__main__"
for name, image in images.items():
    app.function(image=image, name=name, serialized=True)(look)
"""


@pytest.mark.parametrize("version", ["2023.12", "2024.04", "2024.10", "2025.06", "2026.10"])
def test_recipes_of_every_image_builder_version_are_built(builder: LocalModal, version: str) -> None:
    before = environments(builder)
    deploy_well(builder, EVERY_WAY, MODAL_IMAGE_BUILDER_VERSION=version)
    # uv was asked about two of them.
    assert len(environments(builder)) <= len(before) + 2
    assert not list((builder.data / "images").glob("*/venv/lib/*/site-packages/httpx*"))
    env, workdir, ignored = remote(builder, "env", "workdir", "ignored")
    assert env[:2] == ['it\'s $HOME "quoted"', ""]
    assert Path(workdir[2]).name == "a folder"
    assert ignored[3] == sys.prefix


def test_packages_copied_into_the_image_are_installed(builder: LocalModal) -> None:
    wheel = next((builder.root / "wheels").glob("lm_one-1.0*"))
    deploy_well(
        builder,
        f"""
        wheel = HERE / "wheels" / {wheel.name!r}
        image = (
            base.add_local_file(wheel, "/opt/" + wheel.name, copy=True)
            .pip_install("/opt/" + wheel.name, extra_options="--no-index")
            .add_local_dir(HERE / "wheels", "/opt/wheels", copy=True)
            .uv_pip_install("lm_two", find_links="/opt/wheels", extra_options="--no-index")
        ) if modal.is_local() else None
        @app.function(image=image)
        def look():
            import lm_one, lm_two
            return [lm_one.VERSION, lm_two.VERSION]
        """,
    )
    assert remote(builder, "look") == [["1.0", "1.0"]]


def test_run_function_is_executed_once_as_a_build_step(builder: LocalModal) -> None:
    app = """
    volume = modal.Volume.from_name("models", create_if_missing=True)
    def download(name, size=1):
        print("downloading", name, flush=True)
        if size > 9: raise ValueError(f"{{name}} is too large")
        with open("/models/" + name, "a") as file: file.write("x" * size)
        volume.commit()
    image = base.run_function(download, args=["a"], kwargs={{"size": {size}}}, volumes={{"/models": volume}})
    @app.function(image=image, volumes={{"/models": volume}})
    def stored(): return Path("/models/a").read_text()
    """
    assert "downloading a" in deploy_well(builder, app.format(size=3))
    assert remote(builder, "stored") == ["xxx"]
    assert "downloading" not in deploy_well(builder, app.format(size=3)), "a step that is done is not done again"
    assert "downloading" in deploy_well(builder, app.format(size=2))
    assert remote(builder, "stored") == ["xxxxx"]
    said = refused(builder, app.format(size=10))
    assert "download failed: " in said and "a is too large" in said
    assert remote(builder, "stored") == ["xxxxx"]


def test_build_secrets_are_used_and_never_printed(local_modal: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing leaves this machine: there is no such proxy.
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy-user:proxy-password@127.0.0.1:9")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    local_modal.stop()
    local_modal.start()
    app = """
    secret = modal.Secret.from_dict({"GITHUB_TOKEN": "sesame-open"})
    image = base.pip_install_private_repos("github.com/me/there", git_user="me", secrets=[secret],
                                           index_url="http://user:in-the-url@127.0.0.1:9/simple")
    @app.function(image=image)
    def never(): pass
    """
    done = refused(local_modal, app)
    assert "a step of the image failed" in done and "github.com/me/there" in done
    for text in (done, local_modal.log.read_text()):
        assert not any(secret in text for secret in ("sesame-open", "in-the-url", "proxy-password"))
    done = refused(local_modal, app.replace("GITHUB_TOKEN", "OTHER"))
    assert "GITHUB_TOKEN is in none of the Secrets" in done


UNSAFE = """
secret = modal.Secret.from_dict({"TOKEN": "the-token"})
image = (
    modal.Image.from_registry("ubuntu:22.04", add_python="3.11").env({"GREETING": "hello"})
    .add_local_file(HERE / "imaged.py", "/root/data/source.py", copy=True).workdir("/root/data")
    .run_commands("echo $GREETING | tr h j > made.txt && wc -c < source.py >> made.txt", "echo $TOKEN > token.txt",
                  secrets=[secret])
    .pip_install("lm_one", extra_options=LOCAL)
    .run_commands("lm_one > version.txt", "python -c 'import modal, sys; print(sys.prefix)' > prefix.txt")
) if modal.is_local() else None

@app.function(image=image)
def look():
    return [Path(name + ".txt").read_text().split() for name in ("made", "token", "version", "prefix")] + [sys.prefix]
"""


def test_commands_run_with_unsafe_run_commands(local_modal: LocalModal) -> None:
    local_modal.stop()
    local_modal.start("--unsafe-run-commands")
    said = deploy_well(local_modal, UNSAFE)
    assert "the-token" not in said
    made, token, version, prefix, here = remote(local_modal, "look")[0]
    size = len((local_modal.root / "imaged.py").read_bytes())
    assert (made, token, version, prefix) == (["jello", str(size)], ["the-token"], ["2.0"], [here])
    said = refused(local_modal, "@app.function(image=base.run_commands('echo so it is >&2; exit 3'))\ndef no(): pass\n")
    assert "so it is" in said


SLOW = """
image = base.run_commands("echo begun > begun; while ! test -e {go}; do sleep 0.05; done; echo ended >> {ends}")
@app.function(image=image)
def version(): return {version}
"""


def test_build_is_shared_and_repeated_after_a_crash(local_modal: LocalModal) -> None:
    go, ends = local_modal.root / "go", local_modal.root / "ends"

    def begun() -> bool:
        return any((local_modal.data / "images").glob("*/root/begun"))

    def deploy_version(version: int) -> subprocess.CompletedProcess[str]:
        app = SLOW.format(go=go, ends=ends, version=version)
        return deploy(local_modal, f"app = modal.App('imaged{version}')\n{app}", f"app{version}.py")

    local_modal.stop()
    local_modal.start("--unsafe-run-commands")
    with ThreadPoolExecutor() as pool:
        for how in (signal.SIGTERM, signal.SIGKILL):
            cut_off = pool.submit(deploy_version, 1)
            wait_until(begun, "the build to begin")
            assert local_modal.containers(), "the command runs"
            local_modal.stop(how)
            assert cut_off.result().returncode != 0
            local_modal.start("--unsafe-run-commands")
            assert not local_modal.containers(), "nothing of the first build is left"
            assert not begun()
        both = [pool.submit(deploy_version, n) for n in (2, 3)]
        wait_until(begun, "the build to begin again")
        go.touch()
        for future in both:
            done = future.result()
            assert done.returncode == 0, done.stdout + done.stderr
    assert ends.read_text() == "ended\n"
    versions = "[modal.Function.from_name(f'imaged{n}', 'version').remote() for n in (2, 3)]"
    assert local_modal.sdk(f"answer({versions})") == [2, 3]
