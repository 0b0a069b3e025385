"""Small manipulation tasks for tests. Robots come from the asset cache, objects from code."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim import Demonstration, Layout, ManipTask, parse_task, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.assets import fetched
from nimbusd.stages.workflow.sim.world.simulation import Simulation


def require_simulation() -> None:
    """Skip the module where MuJoCo or the robots are not there."""
    pytest.importorskip("mujoco", reason="needs the mujoco extra")
    if not fetched("robosuite"):
        pytest.skip("needs `nimbusctl assets fetch`", allow_module_level=True)


def task_of(skills: list[dict[str, Any]], slots: list[dict[str, Any]], **more: Any) -> ManipTask:
    """A task with one small camera. skills: {skill, ...arguments}."""
    own = ("skill", "for_each")
    calls = [
        {key: entry[key] for key in own if key in entry} | {"with": {k: v for k, v in entry.items() if k not in own}}
        for entry in skills
    ]
    settings = {
        "name": "test",
        "instructions": ["Do it."],
        "cameras": [
            {"name": "front", "width": 160, "height": 120},
            {"name": "wrist", "width": 96, "height": 96, "mount": "*", "position_m": [0.07, 0, 0.02],
             "target_m": [0.02, 0, 0.14]},
        ],
    }  # fmt: skip
    return parse_task({**settings, "slots": slots, "skills": calls, **more})


def cube_into_area(robot: str = "franka", simulator: str = "mujoco") -> ManipTask:
    """Pick a cube and put it into a painted rectangle."""
    return task_of(
        [
            {"skill": "pick", "object": "$cube"},
            {"skill": "place", "object": "$cube", "relation": "in", "reference": "$area"},
        ],
        [{"name": "cube", "models": ["cube"], "x_m": [0.4, 0.55], "y_m": [-0.2, 0.0]}],
        regions=[{"name": "area", "x_m": [0.42, 0.55], "y_m": [0.1, 0.2]}],
        goals=[{"subject": "$cube", "relation": "in", "reference": "$area"}],
        instructions=["Put the {cube} into the {area}.", "Bring the {cube} to the {area}."],
        robot=robot,
        physics={"simulator": simulator},
    )


def put(simulation: Simulation, qpos: F64, qvel: F64 | None = None) -> None:
    """Put a simulation into a state, at rest without velocities; its servos keep their set points."""
    still = np.zeros(simulation.world.model.nv)
    simulation.simulator.reset(qpos, still if qvel is None else qvel, simulation.targets)


@cache
def planned(robot: str = "franka", seed: int = 1) -> tuple[ManipTask, Layout, Demonstration]:
    """An episode of `cube_into_area`, planned once per test process."""
    task, rng = cube_into_area(robot), np.random.default_rng(seed)
    layout = randomize_layout(task, rng)
    return task, layout, plan_episode(task, layout, rng)
