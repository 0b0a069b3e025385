"""Masks of arms and things in MuJoCo's pictures and in other renderers': do they show the same in the same place?

    python -m tests.benchmarks.arm_masks [--frames 6] [--pixels 100] [--fine] [--json]

Plans an episode of every task of the three examples and looks at frames spread over each, from all cameras, in their
own size: drawn by MuJoCo as MujocoRenderer does, and by rays cast into the layout's scene with the poses of the
recorded states, which is where BlenderProcRenderer's depth and segmentation come from. For every instance that has at
least `--pixels` pixels in one of the two masks, in every frame: intersection over union. Printed is the least and the
mean of each instance.
`--fine`: MuJoCo's robots are not simplified. Exits with 1 where one is below 0.98.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import yaml

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim import Layout, ManipTask, label_rows, parse_task, plan_episode, randomize_layout
from tests.support.arm_frames import overlaps, pairs

EXAMPLES = {
    "genmanip_pick_place": "pick_place.yaml",
    "simbox_sort_trash": "sort_trash.yaml",
    "simbox_fixtures": "fixtures.yaml",
}
FOLDER = Path(__file__).parents[2] / "examples/manipulation"
LEAST = 0.98
TRIES = 10


@dataclass(frozen=True)
class Row:
    """One instance of an example. masks: how many pairs of masks. least, mean: intersection over union."""

    example: str
    instance: str
    masks: int
    least: float
    mean: float


def episodes(file: str) -> list[tuple[Layout, F64]]:
    """A layout and the states of a successful episode, (T, nq), of every task of a file."""
    configs = yaml.safe_load((FOLDER / file).read_text())["tasks"]
    return [_episode(parse_task(config, FOLDER)) for config in configs]


def _episode(task: ManipTask) -> tuple[Layout, F64]:
    for seed in range(TRIES):
        rng = np.random.default_rng(seed)
        try:
            layout = randomize_layout(task, rng)
            return layout, plan_episode(task, layout, rng).qpos
        except PlanningFailed as error:
            click.echo(f"{task.name}, seed {seed}: {error}", err=True)
    raise SystemExit(f"{task.name}: none of {TRIES} episodes could be planned")


def measure(example: str, frames: int, pixels: int, tolerance_m: float) -> list[Row]:
    found: dict[str, list[float]] = {}
    for layout, qpos in episodes(EXAMPLES[example]):
        names = {label.instance_id: label.name for label in label_rows(layout)}
        chosen = qpos[np.linspace(0, len(qpos) - 1, frames).astype(int)]
        for pair in pairs(layout, chosen, tolerance_m=tolerance_m):
            for number, (overlap, _) in overlaps(pair, pixels).items():
                found.setdefault(names.get(number, "nothing"), []).append(overlap)
    return [
        Row(example, name, len(values), round(min(values), 4), round(float(np.mean(values)), 4))
        for name, values in sorted(found.items())
    ]


@click.command(help=__doc__)
@click.option("--frames", default=6, show_default=True, help="Of each episode, spread over it.")
@click.option("--pixels", default=100, show_default=True, help="Fewest of an instance that counts.")
@click.option("--fine", is_flag=True, help="Do not simplify MuJoCo's robots.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(frames: int, pixels: int, fine: bool, as_json: bool) -> None:
    rows = [row for example in EXAMPLES for row in measure(example, frames, pixels, 0.0 if fine else 0.001)]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(f"{'example':<22}{'instance':<14}{'masks':>6}{'least':>9}{'mean':>9}")
        for row in rows:
            print(f"{row.example:<22}{row.instance:<14}{row.masks:>6}{row.least:>9.4f}{row.mean:>9.4f}")
        print(f"least of all: {min(row.least for row in rows):.4f} (wanted: {LEAST})")
    sys.exit(min(row.least for row in rows) < LEAST)


if __name__ == "__main__":
    main()
