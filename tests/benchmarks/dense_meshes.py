"""The price of a mesh of several hundred thousand triangles in planning, against the same thing with few.

    python -m tests.benchmarks.dense_meshes [--level 7] [--layouts 4]

A rounded block with a relief, of 20 * 4**level triangles (level 7: 327,680) and of 5,120, is picked in some layouts.
The processor time of an episode is the least of them, without that of reading the file, which each process does once.
Exits with 1 where the dense one takes more than four times as long, or is not picked.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import parse_task, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape
from tests.support.hollow_things import dense_block, write_obj

MOST = 4.0
FEW_LEVEL = 4


def measured(folder: Path, level: int, layouts: int) -> float:
    """Least processor time of an episode, seconds; infinite where none succeeds."""
    file = write_obj(folder / f"level_{level}.obj", dense_block(level))
    thing: dict[str, Any] = {"shape": "mesh", "category": "block", "noun": "block", "mesh": str(file)}
    task = parse_task(
        {
            "name": "lift",
            "instructions": ["Lift it."],
            "objects": {"thing": thing},
            "slots": [{"name": "thing", "models": ["thing"], "x_m": [0.4, 0.55], "y_m": [-0.2, 0.2]}],
            "skills": [{"skill": "pick", "with": {"object": "$thing"}}],
            "goals": [{"subject": "$thing", "relation": "lifted"}],
        }
    )
    started = time.process_time()
    shape = mesh_shape(str(file), 1.0)
    planned = len(shape.faces if shape.coarse is None else shape.coarse[1])
    read_s, best = time.process_time() - started, float("inf")
    for seed in range(layouts):
        rng, started = np.random.default_rng(seed), time.process_time()
        try:
            plan_episode(task, randomize_layout(task, rng), rng)
        except PlanningFailed as error:
            click.echo(f"  level {level}, seed {seed}: {error}")
            continue
        best = min(best, time.process_time() - started)
    click.echo(f"{len(shape.faces):7} triangles, planned with {planned:6}: read {read_s:5.2f} s, episode {best:5.2f} s")
    return best


@click.command(help=__doc__)
@click.option("--level", default=7)
@click.option("--layouts", default=4)
def main(level: int, layouts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        few, many = (measured(Path(folder), which, layouts) for which in (FEW_LEVEL, level))
    click.echo(f"ratio {many / few:.1f}")
    sys.exit(0 if many < MOST * few else 1)


if __name__ == "__main__":
    main()
