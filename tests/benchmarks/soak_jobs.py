"""Jobs for a soak: small pictures, real renderers, another seed each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nimbusd.job import Job, read_job

_CAMERA = {"name": "front", "width": 64, "height": 48}
_PICK_PLACE = {
    "name": "pick_place",
    "robot": "franka",
    "cameras": [_CAMERA],
    "physics": {"fps": 4, "substeps": 120},
    "slots": [
        {"name": "target", "models": ["cube", "block", "cylinder"]},
        {"name": "anchor", "models": ["cube", "block", "cylinder"], "x_m": [0.40, 0.60], "y_m": [-0.2, 0.2]},
    ],
    "choices": {"relation": ["left_of", "right_of", "behind", "in_front_of"]},
    "goals": [{"subject": "$target", "relation": "$relation", "reference": "$anchor"}],
    "skills": [
        {"skill": "pick", "with": {"object": "$target"}},
        {"skill": "place", "with": {"object": "$target", "relation": "$relation", "reference": "$anchor"}},
    ],
    "instructions": ["Put the {target} {relation} the {anchor}."],
}
_BLENDER: dict[str, Any] = {
    "episodes_per_scene": 100,
    "pipeline": {
        "load": {"component": "ApartmentLoader"},
        "plan": {
            "component": "NavPlanner",
            "args": {
                "fps": 4,
                "max_frames": 24,
                "min_path_m": 1.0,
                "robot_radius_m": 0.22,
                "camera_height_m": 1.1,
                "cameras": [_CAMERA],
            },
        },
        "render": {"component": "BlenderProcRenderer", "args": {"preset": "draft"}},
        "store": {"component": "NavWriter", "args": {"format": "lerobot-v3.0"}},
    },
}
_MUJOCO: dict[str, Any] = {
    "episodes_per_scene": 15,
    "randomize_every": 1,
    "pipeline": {
        "load": {"component": "EnvLoader", "args": {"workflow_type": "ManipWorkflow"}},
        "randomize": {"component": "EnvRandomizer"},
        "plan": {"component": "EnvPlanner"},
        "render": {"component": "EnvRenderer"},
        "store": {"component": "InternDataM1Writer"},
    },
}
_TOY: dict[str, Any] = {
    "episodes_per_scene": 200,
    "pipeline": {
        "load": {"component": "tests.support.toy:ToyLoader"},
        "plan": {"component": "tests.support.toy:ToyPlanner", "args": {"fail_share": 0.1}},
        "render": {"component": "tests.support.toy:ToyRenderer"},
        "store": {"component": "NavWriter", "args": {"format": "lerobot-v3.0"}},
    },
}
KINDS = ("blender", "mujoco", "toy")
_LIMITS = {"attempts": 1000}
"""An episode whose worker is killed again and again is not to blame."""


def size_for(hours: float) -> int:
    """The size of jobs in a soak of `hours`: compute workers, which are as old as their job, should live for
    long enough to be measured, and the last job should not take as long as the soak.
    """
    return max(1, min(10, round(4 * hours)))


def make_job(kind: str, number: int, folder: Path, size: int = 1) -> Job:
    """The job of a kind and number, always the same. folder: for its file and its output. size: times more episodes."""
    described: dict[str, Any] = {"name": f"{kind}-{number:04d}", "seed": number, "limits": _LIMITS}
    match kind:
        case "blender":
            described |= _BLENDER | {"scenes": [{"name": "apartment", "count": 2, "seed": 2 * number}]}
        case "mujoco":
            task = folder / "pick_place.yaml"
            task.write_text(yaml.safe_dump({"tasks": [_PICK_PLACE]}))
            described |= _MUJOCO | {"scenes": [{"name": "relation", "cfg_path": str(task)}]}
        case _:
            described |= _TOY | {"scenes": [{"name": "a"}, {"name": "b"}]}
    described["episodes_per_scene"] *= size
    path = folder / f"{described['name']}.yaml"
    path.write_text(yaml.safe_dump({**described, "output": str(folder / "outputs" / str(described["name"]))}))
    return read_job(path)
