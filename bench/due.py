"""How late what is due happens while nothing else runs, and the cron comes once an hour: `make bench`."""

from __future__ import annotations

import sys
from statistics import median

from first_light import show

from due_times import KINDS, trigger
from environment import deployed
from local_modal import wait_until

AFTER_SECONDS = 25
"""Much more than a tick lingers, so that a gate has to wait."""
REPEATS = 3


def main() -> None:
    for database in sys.argv[1:] or ["sqlite"]:
        with deployed(database) as environment:
            for name, kind in KINDS.items():
                late = []
                for number in range(REPEATS):
                    run_id = f"{name.replace(' ', '_')}_{number}"
                    trigger(environment, run_id, kind, AFTER_SECONDS)
                    happened = wait_until(lambda k=kind, r=run_id: k.happened(environment, r), name, 120)
                    late.append(happened - (kind.due(environment, run_id, AFTER_SECONDS) or 0.0))
                    environment.command(f"end {run_id}", kind="mark_run", dag_id=run_id, run_id=run_id, state="success")
                    environment.call("run_tick", "bench")
                show(f"{name} is late by ({database}, median)", median(late), "s")


if __name__ == "__main__":
    main()
