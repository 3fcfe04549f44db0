"""Values of the environment's own variables in logs."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


@cache
def mask_environment(names: tuple[str, ...]) -> None:
    """Mask the values of these variables in this process and its forks, if Airflow's rules call their names sensitive.

    Airflow itself masks Variables and Connections only. The supervisor of a task resets the masks before it starts:
    that is when these are added.
    """
    from airflow._shared.secrets_masker import _secrets_masker as of_core
    from airflow.sdk._shared.secrets_masker import _secrets_masker as of_sdk

    for masker in (of_core(), of_sdk()):
        _add_at_reset(masker, names)
        masker.reset_masker()


def _add_at_reset(masker: Any, names: tuple[str, ...]) -> None:
    reset = masker.reset_masker

    def reset_masker() -> None:
        reset()
        for name in names:
            masker.add_mask(os.environ.get(name), name)

    masker.reset_masker = reset_masker
