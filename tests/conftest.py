"""Settings of all tests: how they share the machine, and that no example has a deadline, which depends on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
"""Processes that make episodes import nothing from the current folder; the tests' components are in here."""
_ARITHMETIC = """
import json, os
from nimbusd.makers.arithmetic import MAKER_ENVIRONMENT, maker_environment
made = maker_environment(os.environ).items() - os.environ.items()
print(json.dumps({name: value for name, value in made if name not in MAKER_ENVIRONMENT}))
"""
if "PYTEST_XDIST_WORKER" not in os.environ:
    # What tests compute is compared to the last bit with what processes that make episodes compute. NumPy decides when
    # it is imported, and is not yet; only NumPy can tell which names it knows.
    told = subprocess.run([sys.executable, "-c", _ARITHMETIC], stdout=subprocess.PIPE, check=True).stdout
    os.environ.update(json.loads(told))
settings.register_profile("nimbusd", deadline=None)
settings.load_profile("nimbusd")

PROCESS_BYTES = 3 << 30
"""The most memory of a test process, with the nodes and compute workers that its tests start."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="Run the tests marked `slow`, too.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it was asked for, or tests were named one by one."""
    if config.getoption("--slow") or _named_one_by_one(config):
        return
    left = [item for item in items if item.get_closest_marker("slow") is not None]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


def _named_one_by_one(config: pytest.Config) -> bool:
    return all("::" in argument for argument in config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` means a process for every core that has memory. Tests named one by one need no other process."""
    if _named_one_by_one(config):
        return 0
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // PROCESS_BYTES))


def pytest_configure(config: pytest.Config) -> None:
    """Let processes import the tests' components, and leave each test process its share of the cores: numeric libraries
    and llvmpipe take all of them otherwise.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(config.rootpath), os.environ.get("PYTHONPATH")]))
    if processes := config.getoption("numprocesses", None):
        share = str(max(1, len(os.sched_getaffinity(0)) // processes))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
            os.environ.setdefault(name, share)
