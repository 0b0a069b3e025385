"""Settings of all tests: how they share the machine, and that no example has a deadline, which depends on it."""

from __future__ import annotations

import os

import psutil
import pytest
from hypothesis import settings

settings.register_profile("nimbusd", deadline=None)
settings.load_profile("nimbusd")

PROCESS_BYTES = 3 << 30
"""What a test process may need at most, with the nodes and compute workers that its tests start."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What `-n auto` means: a process for every core that has memory. Tests named one by one need no other process."""
    if all("::" in argument for argument in config.args):
        return 0
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // PROCESS_BYTES))


def pytest_configure(config: pytest.Config) -> None:
    """Leave each test process its share of the cores: numeric libraries and llvmpipe take all of them otherwise."""
    if processes := config.getoption("numprocesses", None):
        share = str(max(1, len(os.sched_getaffinity(0)) // processes))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
            os.environ.setdefault(name, share)
