"""The price of doing without a processor's newest instructions: the same work, with them and without.

    python -m tests.benchmarks.arithmetic [--rounds 3] [--json]

Processor time, the least of some rounds that take turns, each a process of its own: furnished apartments with a drive
planned in each, as the demo does; goals that an arm plans its motion to; and, at the far end, NumPy alone on long
arrays and large matrices, where nothing else takes time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from nimbusd.makers.arithmetic import MAKER_ENVIRONMENT, maker_environment
from tests.benchmarks import motion

GOALS, APARTMENTS = 10, 3


def drives() -> None:
    from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
    from nimbusd.stages.plan.nav import NavArgs, NavPlanner

    loader = ApartmentLoader(ApartmentArgs())
    planner = NavPlanner(NavArgs(min_path_m=1.5, robot_radius_m=0.22, camera_height_m=1.1))
    for seed in range(11, 11 + APARTMENTS):
        scene = loader.load_asset(ApartmentConfig(name="apartment", seed=seed))
        planner.gen_sequence(scene, np.random.default_rng(seed))


def motions() -> None:
    cell = motion.wall_cell()
    motion.measure("connect", cell, motion.problems(cell, GOALS, 5), motion.ours(cell, 5))


def functions() -> None:
    values = np.random.default_rng(0).uniform(0.1, 0.9, 1_000_000)
    for function in (np.sin, np.cos, np.arctan, np.exp, np.log, np.cbrt):
        function(values)
    np.arctan2(values, values[::-1])
    np.power(values, 2.4)


def matrices() -> None:
    matrix = np.random.default_rng(0).normal(size=(800, 800))
    np.linalg.inv(matrix @ matrix)


WORK: dict[str, Callable[[], None]] = {
    f"{APARTMENTS} apartments and drives": drives,
    f"{GOALS} motions of an arm": motions,
    "8 functions of 1,000,000 numbers": functions,
    "product and inverse of 800 x 800": matrices,
}


def measure() -> dict[str, float]:
    """Seconds of processor time by what was done, in this process."""
    spent = {}
    for name, work in WORK.items():
        began = time.process_time()
        work()
        spent[name] = time.process_time() - began
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure()))
        return
    makers = maker_environment(os.environ)
    all_of_it = {**os.environ, **MAKER_ENVIRONMENT}
    least: dict[str, dict[str, float]] = {"all": {}, "makers": {}}
    for _ in range(args.rounds):
        for side, env in (("all", all_of_it), ("makers", makers)):
            command = [sys.executable, "-m", "tests.benchmarks.arithmetic", "--here"]
            told = json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)
            least[side] = {name: min(seconds, least[side].get(name, seconds)) for name, seconds in told.items()}
    if args.json:
        print(json.dumps(least))
        return
    print(f"{'processor seconds':<34}{'all instructions':>18}{'as makers':>12}{'times':>8}")
    for name in WORK:
        one, other = least["all"][name], least["makers"][name]
        print(f"{name:<34}{one:>18.2f}{other:>12.2f}{other / one:>8.2f}")


if __name__ == "__main__":
    main()
