"""Job files of toy components, for tests of what runs jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TOYS: dict[str, Any] = {
    "load": {"component": "tests.support.toy:ToyLoader"},
    "plan": {"component": "tests.support.toy:ToyPlanner"},
    "render": {"component": "tests.support.toy:ToyRenderer"},
    "store": {"component": "tests.support.toy:ToyWriter"},
}
"""A pipeline in which everything is a toy."""


def scenes(*names: str) -> list[dict[str, str]]:
    """Scenes of these names, as a job file has them."""
    return [{"name": name} for name in names]


def write_toy_job(path: Path, pipeline: dict[str, Any] | None = None, **values: Any) -> Path:
    """Write a job file: `toy`, scenes a, b and c with 4 episodes each, to the folder `out` beside it. Returns its path.

    pipeline: stages beside the toys, or in place of them. values: those of the file that are otherwise.
    """
    job: dict[str, Any] = {
        "name": "toy",
        "seed": 3,
        "output": str(path.parent / "out"),
        "scenes": scenes("a", "b", "c"),
        "episodes_per_scene": 4,
        "pipeline": {**TOYS, **(pipeline or {})},
    }
    path.write_text(yaml.safe_dump({**job, **values}))
    return path
