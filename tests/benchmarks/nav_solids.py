"""Drives inside solids: how many of many random drives touch one, in generated scenes and in a real mesh.

`python -m tests.benchmarks.nav_solids [--scenes 200] [--drives 10000] [--mesh MESH.glb] [--json]`

Each scene has up to four closed solids (boxes, cylinders, nested boxes, L-shapes, rows of cabinets, thick walls,
boxes without a bottom, inside out, of loose faces, mirrored) on an open floor or in a room. Every drive is held
against the solids' footprints, which the planner does not know: the robot's axis inside one, and its side touching one.
With --mesh, as many drives as a scene has are made in that mesh, too, each point of them measured by brute force
against the triangles, and asked by rays of an own caster whether it sees only backs of faces.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages import PlanningFailed, Scene
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.types import F64
from tests.benchmarks.nav_planner import TriangleChecker, load
from tests.support.nav_solids import solid_scene

ARGS = NavArgs(min_path_m=0.5, max_path_m=4.0, max_frames=200)
BAND_M = ARGS.step_m, ARGS.robot_height_m
CHORD_M = 0.005
"""Frames are up to 0.1 m apart; a curve between two is nearer to an obstacle than its chord by less than this."""


def drives(planner: NavPlanner[NavArgs], scene: Scene, count: int) -> tuple[list[F64], Counter[str]]:
    """(T, 2) positions of each drive that was planned, and why others were not."""
    planned, reasons = [], Counter[str]()
    for seed in range(count):
        try:
            sequence = planner.gen_sequence(scene, np.random.default_rng(seed))
        except PlanningFailed as failure:
            reasons[failure.reason] += 1
        else:
            planned.append(sequence.states["observation.state"].values[:, :2].astype(float))
    return planned, reasons


def run_scenes(scenes: int, count: int) -> dict[str, Any]:
    inside = touching = planned = empty = 0
    failures: Counter[str] = Counter()
    worst: list[str] = []
    for number in range(scenes):
        made = solid_scene(number)
        found, reasons = drives(NavPlanner(ARGS), made.scene, count // scenes)
        planned += len(found)
        empty += not found
        failures += reasons
        away = [made.distance_m(path, BAND_M) for path in found]
        inside += sum(distance == 0 for distance in away)
        touching += sum(distance < ARGS.robot_radius_m - CHORD_M for distance in away)
        if any(distance < ARGS.robot_radius_m - CHORD_M for distance in away):
            worst.append(made.scene.name)
    return {
        "scenes": scenes,
        "drives asked for": scenes * (count // scenes),
        "drives planned": planned,
        "drives with the axis inside a solid": inside,
        "drives that touch a solid": touching,
        "scenes with such drives": worst,
        "scenes without any drive": empty,
        "failures": dict(failures),
    }


def run_mesh(path: Path, count: int) -> dict[str, Any]:
    scene = load(path, "auto")
    planner = NavPlanner(ARGS)
    found, reasons = drives(planner, scene, count)
    z_m = planner.floors(scene)[0].z_m
    checker = TriangleChecker(scene, z_m + ARGS.step_m, z_m + ARGS.robot_height_m)
    backs = sum(only_backs(scene, path[:: max(1, len(path) // 8)], z_m + 0.6).any() for path in found)
    touching = sum(checker.clearance(path, 1.0) < ARGS.robot_radius_m - CHORD_M for path in found)
    return {
        "mesh": path.name,
        "mesh: drives planned": len(found),
        "mesh: drives that see only backs of faces": int(backs),
        "mesh: drives that touch a triangle": touching,
        "mesh: failures": dict(reasons),
    }


def only_backs(scene: Scene, xy: F64, z_m: float) -> Any:
    """(N,) whether of 26 rays from a point, all around and upwards, 9 in 10 meet first the back of a face (trimesh)."""
    import trimesh

    soup = np.concatenate([obj.world_vertices()[obj.faces] for obj in scene.objects])
    mesh = trimesh.Trimesh(soup.reshape(-1, 3), np.arange(3 * len(soup)).reshape(-1, 3), process=False)
    yaw = np.arange(13) * 2 * np.pi / 13
    rays = np.concatenate([np.column_stack([np.cos(yaw), np.sin(yaw), np.full(13, up)]) for up in (0.1, 1.0)])
    origins = np.repeat(np.column_stack([xy, np.full(len(xy), z_m)]), len(rays), axis=0)
    met = mesh.ray.intersects_first(origins, np.tile(rays, (len(xy), 1)))
    away = np.einsum("ij,ij->i", mesh.face_normals[met], np.tile(rays, (len(xy), 1))) > 0
    return (away & (met >= 0)).reshape(len(xy), -1).mean(axis=1) >= 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--drives", type=int, default=10_000)
    parser.add_argument("--mesh", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    figures = run_scenes(options.scenes, options.drives)
    if options.mesh:
        figures |= run_mesh(options.mesh, options.drives // options.scenes)
    figures["seconds"] = round(time.perf_counter() - began, 1)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"{name:<48} {value}")


if __name__ == "__main__":
    main()
