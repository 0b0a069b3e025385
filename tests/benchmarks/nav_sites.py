"""The time of planning on large scenes, against an older checkout in the same run.

`python -m tests.benchmarks.nav_sites [--base FOLDER] [--drives 5] [--json]`

A building of three storeys and some 10,000 triangles, and a site of 320 x 180 m. Each is mapped and driven in by a
process of its own, first of this checkout and then of the one in FOLDER: seconds of CPU for the maps (with imports)
and for the drives, the peak of resident memory, and the longest time without a beat (wall clock).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages import Material, PlanningFailed, Scene, SceneObject

REPOSITORY = Path(__file__).parent.parent.parent


def save(scene: Scene, path: Path) -> None:
    """Meshes and categories; an older checkout has no code to make the scene."""
    meshes = {f"{key}_{i}": getattr(obj, key) for i, obj in enumerate(scene.objects) for key in ("vertices", "faces")}
    poses = np.stack([obj.T_world_object for obj in scene.objects])
    np.savez(path, categories=[obj.category for obj in scene.objects], poses=poses, **meshes)


def restored(path: Path) -> Scene:
    with np.load(path) as stored:
        return Scene(
            path.stem,
            tuple(
                SceneObject(
                    name=f"{category}_{i}",
                    category=str(category),
                    instance_id=i + 1,
                    vertices=stored[f"vertices_{i}"],
                    faces=stored[f"faces_{i}"],
                    materials=(Material("plain"),),
                    face_material=np.zeros(len(stored[f"faces_{i}"]), np.int32),
                    T_world_object=stored["poses"][i],
                )
                for i, category in enumerate(stored["categories"])
            ),
        )


def measure(path: Path, drives: int) -> dict[str, float]:
    """In a process of its own: the figures of one scene."""
    scene = restored(path)
    began_cpu, began = time.process_time(), time.perf_counter()
    from nimbusd.stages.plan.nav import NavArgs, NavPlanner

    planner = NavPlanner(NavArgs())
    beats = [time.perf_counter()]
    planner.beat = lambda: beats.append(time.perf_counter())
    planner.floors(scene)
    maps_cpu, maps = time.process_time(), time.perf_counter()
    planned = 0
    for seed in range(drives):
        try:
            planner.gen_sequence(scene, np.random.default_rng(seed))
            planned += 1
        except PlanningFailed as failure:
            print(failure, file=sys.stderr)
    return {
        "maps, CPU s": maps_cpu - began_cpu,
        "maps, s": maps - began,
        "drives, CPU s": time.process_time() - maps_cpu,
        "drives planned": planned,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "longest silence, s": float(np.diff([*beats, time.perf_counter()]).max()),
    }


def measured_apart(checkout: Path, path: Path, drives: int) -> dict[str, float]:
    command = [sys.executable, "-P", __file__, "--measure", str(path), "--drives", str(drives)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(checkout)}, cwd=path.parent, check=True, stdout=subprocess.PIPE
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="a checkout to compare with")
    parser.add_argument("--drives", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.drives)))
        return
    from tests.support.nav_sites import building, site

    checkouts = {"this": REPOSITORY} | ({"base": options.base.resolve()} if options.base else {})
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for scene in (building(), site()):
            path = Path(folder, f"{scene.name}.npz")
            save(scene, path)
            for which, checkout in checkouts.items():
                table[f"{scene.name}, {which}"] = measured_apart(checkout, path, options.drives)
    if options.json:
        print(json.dumps(table, indent=1))
        return
    for name, figures in table.items():
        print(f"{name:<18}", "  ".join(f"{what} {value:.1f}" for what, value in figures.items()))


if __name__ == "__main__":
    main()
