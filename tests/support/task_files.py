"""A small task file and its job, and what `nimbusctl check` says about changes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from nimbusd.cli.check import check
from nimbusd.stages.workflow.sim.models.assets import asset
from nimbusd.stages.workflow.sim.models.robots import ROBOTS

SLOTS: list[dict[str, Any]] = [
    {"name": "thing", "models": ["cube"]},
    {"name": "box", "models": ["bin"], "count": [1, 1]},
    {"name": "more", "models": ["can"], "count": [0, 2]},
    {"name": "press", "models": ["button"]},
]
TASK: dict[str, Any] = {
    "name": "t",
    "slots": SLOTS,
    "choices": {"side": ["left_of", "right_of"]},
    "goals": [{"subject": "$thing", "relation": "in", "reference": "$box"}],
    "skills": [
        {"skill": "pick", "with": {"object": "$thing"}},
        {"skill": "place", "with": {"object": "$thing", "relation": "in", "reference": "$box"}},
    ],
    "instructions": ["Put the {thing} into the {box}."],
}
JOB = {
    "name": "t",
    "scenes": [{"name": "t", "count": 2, "cfg_path": "tasks.yaml"}],
    "pipeline": {
        "load": {"component": "EnvLoader", "args": {"workflow_type": "ManipWorkflow"}},
        "randomize": {"component": "EnvRandomizer"},
        "plan": {"component": "EnvPlanner"},
        "render": {"component": "EnvRenderer"},
        "store": {"component": "EnvWriter"},
    },
}


def errors_of(folder: Path, *tasks: Any) -> list[str]:
    """The errors that `nimbusctl check` finds in a job of these tasks."""
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": list(tasks)}))
    result = CliRunner().invoke(check, [str(folder / "job.yaml"), "--json"], catch_exceptions=False)
    return [error["text"] for error in json.loads(result.stdout)["errors"]]


def own_robot(folder: Path) -> dict[str, Any]:
    """The library's Franka in a task's own words, with paths that start at `folder`."""

    def relative(reference: str) -> str:
        return os.path.relpath(asset(*reference.split(":")), folder)

    robot = ROBOTS["franka"].model_dump(mode="json")
    robot["parts"][0]["mjcf"] = relative(robot["parts"][0]["mjcf"])
    robot["arms"]["arm"]["gripper"]["mjcf"] = relative(robot["arms"]["arm"]["gripper"]["mjcf"])
    task: dict[str, Any] = {
        "name": "mine",
        "robot": "mine",
        "robots": {"mine": robot},
        "slots": [{"name": "cube", "models": ["cube"], "x_m": [0.45, 0.5], "y_m": [-0.1, 0.1]}],
        "goals": [{"subject": "$cube", "relation": "lifted"}],
        "skills": [{"skill": "pick", "with": {"object": "$cube"}}],
        "instructions": ["Lift the {cube}."],
    }
    return task
