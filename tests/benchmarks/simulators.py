"""One task file in every simulator: how often it succeeds, what that costs, and what fails.

    python -m tests.benchmarks.simulators [--layouts 100] [--first 0] [--task pick_place|sort_trash|fixtures]
                                          [--simulator mujoco|sapien] [--json]

Layout i of a task is drawn and planned with seed i, so that all simulators get the same layouts. `cpu` is processor
time per episode, failures included. Exits with 1 where a simulator succeeds in less than 90 % of a task's layouts.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import yaml

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import ManipTask, parse_task, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.world.simulator import SIMULATORS

TASKS = Path(__file__).parents[2] / "examples" / "manipulation"
FILES = ("pick_place", "sort_trash", "fixtures")
GOAL = 0.9


@dataclass
class Result:
    """One task in one simulator. rows: control steps of successful episodes, their mean. reasons: failures."""

    task: str
    simulator: str
    layouts: int = 0
    succeeded: int = 0
    cpu_s: float = 0.0
    rows: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        return self.succeeded / max(self.layouts, 1)


def run_task(task: ManipTask, seeds: range) -> Result:
    """Draw and plan every seed's layout."""
    result, cpu = Result(task.name, task.physics.simulator, len(seeds)), time.process_time()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        try:
            demo = plan_episode(task, randomize_layout(task, rng), rng)
        except PlanningFailed as error:
            result.reasons[error.reason] += 1
            click.echo(f"  {task.name} in {result.simulator}, seed {seed}: {error}", err=True)
            continue
        result.succeeded += 1
        result.rows += len(demo)
    result.rows /= max(result.succeeded, 1)
    result.cpu_s = (time.process_time() - cpu) / len(seeds)
    return result


def table(results: list[Result]) -> str:
    lines = [
        f"{'task':24} {'simulator':>9} {'layouts':>8} {'success':>8} {'rate':>7} {'rows':>6} {'cpu s':>6}  failures"
    ]
    for r in results:
        failures = ", ".join(f"{name} {number}" for name, number in r.reasons.most_common()) or "none"
        lines.append(
            f"{r.task:24} {r.simulator:>9} {r.layouts:8} {r.succeeded:8} {r.rate:7.1%} {r.rows:6.0f} {r.cpu_s:6.2f}  "
            f"{failures}"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--layouts", default=100, help="random layouts per task")
@click.option("--first", default=0, help="seed of the first")
@click.option("--task", "file", type=click.Choice(FILES), default="pick_place", help="an example")
@click.option("--simulator", "only", type=click.Choice(sorted(SIMULATORS)), help="one instead of all")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def main(layouts: int, first: int, file: str, only: str | None, as_json: bool) -> None:
    results = []
    for config in yaml.safe_load((TASKS / f"{file}.yaml").read_text())["tasks"]:
        for simulator in (only,) if only else SIMULATORS:
            task = parse_task({**config, "physics": {**config.get("physics", {}), "simulator": simulator}})
            results.append(run_task(task, range(first, first + layouts)))
    click.echo(
        json.dumps([asdict(result) | {"rate": result.rate} for result in results]) if as_json else table(results)
    )
    sys.exit(1 if any(result.rate < GOAL for result in results) else 0)


if __name__ == "__main__":
    main()
