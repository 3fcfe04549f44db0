"""Checks that the tests catch faults: breaks one line at a time and runs the test that must fail then.

Each TOML file beside this one is a mutation: `what` behavior it breaks, the `file`, the text to `find` in it, which
occurs exactly once, the text to `replace` it with, and the `test`: a shell command that must fail then. Mutations are
applied to a scratch worktree of HEAD, so changes that are not committed are neither tested nor touched.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "target" / "mutants"
"""The scratch worktree. Its path is always the same: cargo compiles dependencies again for another one."""
TARGET = ROOT / "target" / "mutants-target"
BUILD = (
    "cargo build --locked -q -p modal-emulator -p airflowd -p airflow-serverless"
    " && cargo build --locked -q -p modal-proto --examples"
)
BUILD_SECONDS = 60 * 60.0
TEST_SECONDS = 15 * 60.0
STOP_SECONDS = 30.0
SHOWN_LINES = 20


@dataclass(frozen=True)
class Mutation:
    """One fault, and the test that must notice it."""

    name: str
    what: str
    file: str
    find: str
    replace: str
    test: str

    @classmethod
    def read(cls, path: Path) -> Mutation:
        """Raises ValueError or TypeError if the file is not complete."""
        mutation = cls(path.stem, **tomllib.loads(path.read_text()))
        if empty := [name for name, value in asdict(mutation).items() if name != "replace" and not value]:
            raise ValueError(f"{', '.join(empty)} must not be empty")
        mutation.source(ROOT)
        return mutation

    def source(self, root: Path) -> str:
        """The text of its file in the checkout `root`. Raises ValueError if the mutation cannot be applied to it."""
        text = (root / self.file).read_text()
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"{self.find!r} occurs {count} times in {self.file}")
        return text

    @property
    def needs_programs(self) -> bool:
        """Whether the test starts programs of the workspace, rather than testing one crate by itself."""
        return not self.test.startswith("cargo test") or "-p integration-tests" in self.test

    @property
    def builds(self) -> list[str]:
        """Commands that compile the mutated file for the test; none if Python loads it from the source."""
        if self.test.startswith("cargo test"):
            tests = self.test.replace("cargo test", "cargo test --no-run", 1)
            return [BUILD, tests] if self.needs_programs else [tests]
        return [] if self.file.startswith("modal_functions/") and not self._starts_daemon() else [BUILD]

    def _starts_daemon(self) -> bool:
        """Whether the test runs the copy of `modal_functions` that is compiled into the daemon."""
        modules = [word for word in self.test.split() if word.endswith(".py")]
        return any("from daemon import" in (ROOT / module).read_text() for module in modules)

    @contextmanager
    def applied(self) -> Iterator[None]:
        path, original = TREE / self.file, self.source(TREE)
        path.write_text(original.replace(self.find, self.replace))
        try:
            yield
        finally:
            path.write_text(original)

    def judge(self) -> str:
        """`caught`, `MISSED` or `does not build`."""
        with self.applied():
            if not all(run(command, BUILD_SECONDS)[0] for command in self.builds):
                return "does not build"
            return "MISSED" if run(self.test, TEST_SECONDS)[0] else "caught"


def run(command: str, limit: float) -> tuple[bool, str]:
    """Runs a shell command in the scratch worktree; returns whether it succeeded within `limit` seconds, and its
    output."""
    variables = {
        "AIRFLOW_SERVERLESS_RUNTIMES": str(ROOT / "target" / "runtimes"),
        **os.environ,
        "CARGO_TARGET_DIR": str(TARGET),
        # Two mutations of one file within a second look the same to Python's cache.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Another program than the one that was built, and clippy, which refuses what a mutation leaves unused.
    for name in ("MODAL_LOCAL_BIN", "RUSTC_WORKSPACE_WRAPPER"):
        variables.pop(name, None)
    # Not a pipe: processes that a failed test leaves behind would keep it open.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=TREE,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            succeeded = process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            succeeded = False
        finally:
            stop(process)
        output.seek(0)
        return succeeded, output.read()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a command that still runs, with what it started: pytest stops its servers at the first signal."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(STOP_SECONDS)


@contextmanager
def scratch_worktree() -> Iterator[None]:
    if TREE.exists():
        sys.exit(f"{TREE} exists: another run uses it, or was killed\nhint: git worktree remove --force {TREE}")
    git = ["git", "-C", str(ROOT), "worktree"]
    try:
        subprocess.run([*git, "add", "--quiet", "--detach", str(TREE), "HEAD"], check=True)
        TARGET.mkdir(exist_ok=True)
        # Tests look for programs and the interpreter in their own checkout.
        (TREE / "target").symlink_to(TARGET)
        (TREE / ".venv").symlink_to(ROOT / ".venv")
        yield
    finally:
        subprocess.run([*git, "remove", "--force", str(TREE)], check=False)


def find_broken_tests(mutations: list[Mutation]) -> set[str]:
    """Runs each test without a mutation; returns those that do not pass, whose failure would prove nothing."""
    if any(mutation.needs_programs for mutation in mutations):
        built, output = run(BUILD, BUILD_SECONDS)
        if not built:
            sys.exit(f"HEAD does not build\n{output}")
    broken = set()
    for test in dict.fromkeys(mutation.test for mutation in mutations):
        passed, output = run(test, BUILD_SECONDS)
        # A filter that matches no test would pass, too.
        if not (passed and re.search(r"\b[1-9]\d* passed", output)):
            broken.add(test)
            print(f"fails without a mutation: {test}", *output.splitlines()[-SHOWN_LINES:], sep="\n  ", flush=True)
    return broken


def test_all(mutations: list[Mutation]) -> int:
    """Prints one line for each mutation and a summary; returns the exit code."""
    # Those of Python first: they run against programs without a mutation, which later builds replace.
    mutations = sorted(mutations, key=lambda mutation: bool(mutation.builds))
    verdicts = []
    with scratch_worktree():
        for mutation in mutations:
            # HEAD may differ from what was checked.
            mutation.source(TREE)
        broken = find_broken_tests(mutations)
        for mutation in mutations:
            started = time.monotonic()
            verdict = "broken test" if mutation.test in broken else mutation.judge()
            seconds = f" ({time.monotonic() - started:.0f} s)" if verdict == "caught" else ""
            print(f"{verdict} {mutation.name}{seconds}", flush=True)
            verdicts.append(verdict)
    caught, missed = verdicts.count("caught"), verdicts.count("MISSED")
    print(f"{caught} caught, {missed} missed, {len(verdicts) - caught - missed} broken")
    return 0 if caught == len(verdicts) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Check that the tests catch faults")
    parser.add_argument("names", nargs="*", metavar="NAME", help="test only these mutations")
    parser.add_argument("--check", action="store_true", help="only check that the mutations can be applied")
    arguments = parser.parse_args()
    paths = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}
    if unknown := set(arguments.names) - set(paths):
        parser.error(f"unknown mutations: {', '.join(sorted(unknown))}")
    mutations, is_valid = [], True
    for name in arguments.names or paths:
        try:
            mutations.append(Mutation.read(paths[name]))
        except (OSError, TypeError, ValueError) as error:
            is_valid = False
            print(f"{name}: {error}", file=sys.stderr)
    if arguments.check or not is_valid:
        print(f"{len(mutations)} of {len(arguments.names or paths)} mutations are valid")
        return 0 if is_valid else 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return test_all(mutations)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
