"""Success and cost of manipulation: the example tasks over random layouts, and what rendering their frames costs.

    python -m tests.benchmarks.manipulation [--layouts 200] [--first 0] [--robot R]
                                            [--task pick_place|sort_trash|fixtures] [--frames 24] [--json]

`fixtures` are three tasks: into a drawer, a cabinet's door, and a door, a button and a knob in one episode.

Layout i of a task is drawn and planned with seed i; a layout that cannot be drawn counts as a failure like one whose
plan fails. `cpu` is processor time, which other programs on the machine disturb less than `wall`. Rendering is measured
on frames of one planned episode. Exits with 1 where fewer than 95 % of a task's layouts succeed.
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

from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
from nimbusd.renderers.stacked import render_stacked
from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import Demonstration, Layout, ManipTask, parse_task, plan_episode, randomize_layout

TASKS = Path(__file__).parents[2] / "examples" / "manipulation"
FILES = ("pick_place", "sort_trash", "fixtures")
GOAL = 0.95


@dataclass
class Result:
    """One task's row. reasons: failures. stages_ms: wall milliseconds per episode and stage, successful episodes."""

    task: str
    layouts: int = 0
    succeeded: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    stages_ms: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    rows: float = 0.0

    @property
    def rate(self) -> float:
        return self.succeeded / max(self.layouts, 1)


def run_task(task: ManipTask, seeds: range, show: bool) -> tuple[Result, tuple[Layout, Demonstration] | None]:
    """Draw and plan every seed's layout; also the last success."""
    result, last = Result(task.name), None
    spent: dict[str, float] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        wall, cpu = time.perf_counter(), time.process_time()
        result.layouts += 1
        try:
            layout = randomize_layout(task, rng)
            drawn = time.perf_counter()
            demo = plan_episode(task, layout, rng)
        except PlanningFailed as error:
            result.reasons[error.reason] += 1
            if show:
                click.echo(f"  {task.name} {seed}: {error}", err=True)
            continue
        for stage, seconds in {"layout": drawn - wall, **demo.timings_s}.items():
            spent[stage] = spent.get(stage, 0.0) + seconds
        result.succeeded += 1
        result.rows += len(demo)
        result.cpu_s += time.process_time() - cpu
        last = (layout, demo)
    count = max(result.succeeded, 1)
    result.stages_ms = {name: value / count * 1e3 for name, value in spent.items()}
    result.rows /= count
    result.cpu_s /= count
    return result, last


def render(layout: Layout, demo: Demonstration, count: int) -> dict[str, float]:
    """Label → wall milliseconds per frame and camera, of `count` states of the episode."""
    rows = np.linspace(0, len(demo) - 1, count).astype(int)
    qpos = demo.qpos[rows]
    cameras = [entry.camera for entry in layout.cameras]
    poses = {name: T[rows] for name, T in demo.T_world_camera.items()}

    def timed(settings: ViewSettings) -> float:
        view = MujocoView(layout, "auto", settings)
        try:
            list(render_stacked(view, qpos[:1], cameras, {n: T[:1] for n, T in poses.items()}, 1))
            started = time.perf_counter()
            frames = len(list(render_stacked(view, qpos, cameras, poses, 1)))
            return (time.perf_counter() - started) / frames * 1e3
        finally:
            view.close()

    size = f"{cameras[0].width}x{cameras[0].height}"
    return {
        f"RGB alone, {size}": timed(ViewSettings(depth=False, segmentation=False)),
        f"RGB, depth, ids, {size}": timed(ViewSettings()),
    }


def table(results: list[Result], frames_ms: dict[str, float] | None) -> str:
    lines = [f"{'task':24} {'layouts':>8} {'success':>8} {'rate':>7} {'rows':>6} {'cpu s':>6}  failures"]
    for r in results:
        failures = ", ".join(f"{name} {number}" for name, number in r.reasons.most_common()) or "none"
        lines.append(
            f"{r.task:24} {r.layouts:8} {r.succeeded:8} {r.rate:7.1%} {r.rows:6.0f} {r.cpu_s:6.2f}  {failures}"
        )
    for r in results:
        stages = ", ".join(f"{name} {ms:.0f}" for name, ms in r.stages_ms.items())
        lines.append(f"{r.task}: wall ms per episode: {stages}")
    lines += [f"{name:40} {ms:8.1f} ms per frame" for name, ms in (frames_ms or {}).items()]
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--layouts", default=200, help="random layouts per task")
@click.option("--first", default=0, help="seed of the first")
@click.option("--robot", default="", help="another robot of the library for all tasks")
@click.option("--task", "only", type=click.Choice(FILES), help="one example instead of all")
@click.option("--frames", default=24, help="frames per camera to render; 0 renders none")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")
def main(layouts: int, first: int, robot: str, only: str | None, frames: int, as_json: bool) -> None:
    results, rendered = [], None
    configs = [
        config for name in FILES if only in (None, name)
        for config in yaml.safe_load((TASKS / f"{name}.yaml").read_text())["tasks"]
    ]  # fmt: skip
    for config in configs:
        task = parse_task({**config, "robot": robot} if robot else config)
        result, last = run_task(task, range(first, first + layouts), show=not as_json)
        results.append(result)
        if frames and last is not None and rendered is None:
            rendered = render(*last, frames)
    if as_json:
        shown = [{**asdict(result), "rate": result.rate} for result in results]
        click.echo(json.dumps({"tasks": shown, "frames": rendered}))
    else:
        click.echo(table(results, rendered))
    sys.exit(1 if any(result.rate < GOAL for result in results) else 0)


if __name__ == "__main__":
    main()
