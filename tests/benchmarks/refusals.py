"""The time until tasks that cannot be done are refused, and the reason and words of it.

    python -m tests.benchmarks.refusals [--only WORD] [--seeds 1]

Each row is a task: what refuses it (`check`, the drawing of a layout, or planning), the reason, the processor time
until then, with the compilation of the world. Exits with 1 where a task is not refused, or takes more than 5 s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np

from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import ManipTask, impossibilities, parse_task, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.robots import ROBOTS

MOST_S = 5.0

CUBE: dict[str, Any] = {"name": "cube", "models": ["cube"], "x_m": [0.45, 0.55], "y_m": [-0.1, 0.1]}
BIN: dict[str, Any] = {"name": "bin", "models": ["bin"], "x_m": [0.5, 0.55], "y_m": [0.3, 0.35], "yaw_rad": [0, 0]}
PICK = {"skill": "pick", "with": {"object": "$cube"}}
INTO_BIN = {"skill": "place", "with": {"object": "$cube", "relation": "in", "reference": "$bin"}}


def task(skills: list[dict[str, Any]], slots: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"name": "refused", "instructions": ["Do it."], "skills": skills, "slots": slots, **more}


def franka(**arm: Any) -> dict[str, Any]:
    """A robot of the task's own: the Franka, but for some keys of its arm."""
    model = ROBOTS["franka"].model_dump(mode="json")
    model["arms"]["arm"].update(arm)
    return {"robot": "mine", "robots": {"mine": model}}


def far_region() -> dict[str, Any]:
    place = {"skill": "place", "with": {"object": "$cube", "relation": "in", "reference": "$area"}}
    return task([PICK, place], [CUBE], regions=[{"name": "area", "x_m": [1.0, 1.1], "y_m": [0, 0.1]}],
                table={"size_m": [1.6, 1.8]})  # fmt: skip


def far_goal() -> dict[str, Any]:
    behind = {"skill": "place", "with": {"object": "$cube", "relation": "behind", "reference": "$bin"}}
    return task([PICK, behind], [CUBE, {**BIN, "x_m": [0.7, 0.72], "y_m": [0.0, 0.05]}])


def walled_in() -> dict[str, Any]:
    walls = [
        {"name": f"wall_{number}", "models": ["cube"], "size_m": [0.05, 0.05, 0.2], "gap_m": 0.0, "yaw_rad": [0, 0],
         "x_m": [0.5 + dx] * 2, "y_m": [dy] * 2, "fixed": True}
        for number, (dx, dy) in enumerate(((0.052, 0), (-0.052, 0), (0, 0.052), (0, -0.052)))
    ]  # fmt: skip
    middle = {**CUBE, "x_m": [0.5, 0.5], "y_m": [0, 0], "yaw_rad": [0, 0], "gap_m": 0.0, "size_m": [0.05, 0.05, 0.05]}
    return task([PICK], [*walls, middle], seen_share=0)


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "slot out of reach": lambda: task([PICK], [{**CUBE, "x_m": [1.05, 1.1]}]),
    "slot mostly out of reach": lambda: task([PICK], [{**CUBE, "x_m": [0.7, 2.8], "y_m": [-2.4, 2.4]}],
                                             table={"size_m": [5, 5]}),
    "region out of reach": far_region,
    "goal out of reach": far_goal,
    "home outside limits": lambda: task([PICK], [CUBE], **franka(home=(0.0, -0.45, 0.0, 0.5, 0.0, 1.9, 0.7854))),
    "home in the table": lambda: task([PICK], [CUBE], **franka(home=(0.0, 1.7, 0.0, -0.6, 0.0, 1.9, 0.7854))),
    "home in itself": lambda: task([PICK], [CUBE], **franka(home=(0.0, 0.5, 0.0, -3.05, 0.0, 0.5, 0.7854))),
    "wider than the gripper": lambda: task([PICK], [{**CUBE, "size_m": [0.12, 0.12, 0.12]}]),
    "too heavy": lambda: task([PICK], [{**CUBE, "size_m": [0.06, 0.06, 0.2]}], randomize={"mass": [90, 100]}),
    "immovable": lambda: task([PICK], [{**CUBE, "fixed": True}]),
    "container too small": lambda: task([PICK, INTO_BIN], [{**CUBE, "size_m": [0.06, 0.2, 0.05]},
                                                           {**BIN, "size_m": [0.12, 0.12, 0.08]}]),
    "drawer looks away": lambda: task(
        [{"skill": "open", "with": {"object": "$chest"}}],
        [{"name": "chest", "models": ["drawer"], "x_m": [0.6, 0.62], "y_m": [0, 0.02], "yaw_rad": [3.1, 3.18]}]),
    "drawer blocked": lambda: task(
        [{"skill": "open", "with": {"object": "$chest"}}],
        [{"name": "chest", "models": ["drawer"], "x_m": [0.34, 0.35], "y_m": [0, 0.02], "yaw_rad": [-0.05, 0.05]}]),
    "too many for the slot": lambda: task([{"skill": "home"}], [{**CUBE, "count": [9, 9], "x_m": [0.4, 0.45],
                                                                "y_m": [0, 0.05]}]),
    "a little too many for the slot": lambda: task([{"skill": "home"}], [{**CUBE, "count": [9, 9], "x_m": [0.4, 0.55],
                                                                         "y_m": [0, 0.15]}]),
    "goal holds from the start": lambda: task(
        [PICK], [{**CUBE, "x_m": [0.5, 0.5], "y_m": [0.2, 0.2]}, {**BIN, "x_m": [0.5, 0.5], "y_m": [-0.05, -0.05]}],
        goals=[{"subject": "$cube", "relation": "left_of", "reference": "$bin"}]),
    "walled in": walled_in,
    "pose out of reach": lambda: task([{"skill": "goto_pose", "with": {"position_m": [1.3, 0, 0.3]}}], [CUBE]),
    "pose in the table": lambda: task([{"skill": "goto_pose", "with": {"position_m": [0.5, 0, -0.05]}}], [CUBE]),
}  # fmt: skip


class Refusal(NamedTuple):
    """by: check, layout or plan; empty where the task was done."""

    by: str
    reason: str
    words: str
    cpu_s: float


def refused(config: dict[str, Any], seed: int) -> Refusal:
    """The fate of a task, from its file on."""
    started, by = time.process_time(), "check"

    def done(reason: str, words: str) -> Refusal:
        return Refusal(by, reason, words, time.process_time() - started)

    try:
        read: ManipTask = parse_task(config)
        if found := impossibilities(read):
            return done("impossible", found[0].text)
        rng, by = np.random.default_rng(seed), "layout"
        layout = randomize_layout(read, rng)
        by = "plan"
        plan_episode(read, layout, rng)
    except ArgumentsError as error:
        return done("mistake", str(error))
    except PlanningFailed as error:
        return done(error.reason, error.detail)
    by = ""
    return done("", "was done")


@click.command(help=__doc__)
@click.option("--only", default="", help="cases whose name contains this")
@click.option("--seeds", default=1, help="layouts per case")
def main(only: str, seeds: int) -> None:
    missed = False
    for name, config in CASES.items():
        for seed in range(seeds) if only in name else ():
            row = refused(config(), seed)
            missed |= row.cpu_s > MOST_S or not row.by
            click.echo(f"{name:31} {row.by or '-':7} {row.reason or '-':20} {row.cpu_s:6.2f} s  {row.words}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
