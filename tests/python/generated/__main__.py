"""`python -m generated`: runs many generated cases. See `--help`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from environment import DATABASES
from generated.cases import named
from generated.generation import generate
from generated.trial import BATCH, BATCHES, Outcome, run, validators

PART = BATCH * BATCHES
"""Cases in one environment; what came of them is printed then."""


def main() -> int:
    """Returns 1 if a case stops the scheduler, or an accepted file is not in the database."""
    parser = argparse.ArgumentParser(prog="generated", description="Run generated DAG files beside a canary")
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: both, one after the other")
    parser.add_argument("--cases", type=int, default=2000, help="how many, on each database")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**9), help="of the first case; the next one has the next"
    )
    arguments = parser.parse_args()
    status = 0
    for database in arguments.database or DATABASES:
        print(f"{database}: {arguments.cases} cases with --seed {arguments.seed}", flush=True)
        outcome, started = Outcome(), time.monotonic()
        with tempfile.TemporaryDirectory() as folder, validators(Path(folder)) as validator:
            for at in range(0, arguments.cases, PART):
                count = min(PART, arguments.cases - at)
                part = Outcome()
                run(named(generate(count, arguments.seed + at), at), database, part, validator)
                show(part)
                outcome.add(part)
                print(f"{database}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
        status |= bool(outcome.stopped or outcome.left_out)
    return status


def show(outcome: Outcome) -> None:
    for text in sorted({*outcome.quarantined}):
        print(f"  quarantined: {text[:300]}")
    for name in outcome.left_out:
        print(f"  not stored: {name}")
    for cases, reason in outcome.stopped:
        print(f"  {len(cases)} case(s) stop the scheduler: {reason}", *cases, sep="\n    ")


if __name__ == "__main__":
    sys.exit(main())
