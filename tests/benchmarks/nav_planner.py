"""The quality and speed of navigation planning on a real mesh.

`python -m tests.benchmarks.nav_planner MESH.glb [--pairs 200] [--map map.yaml] [--plot paths.png] [--json]`

Random pairs of points, at least 2 m apart, on every floor of the mesh:

- colliding paths, by a checker that shares no code with the planner: every triangle is clipped to the robot's
  heights, and every point of the path (5 mm apart) is measured against every triangle around it;
- the share of reachable pairs that were planned, and the time that a pair takes;
- the price of smoothing: length against the shortest path over cells, and corners that had to stay corners;
- the time of whole episodes (sampling, planning, timing, poses) once the map is made;
- with --map, a ROS occupancy map of the same place: the intersection over union of free space.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from nimbusd.stages import PlanningFailed, Scene
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.plan.grid_search import search
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.plan.occupancy import FloorMap, MapArgs, floor_map
from nimbusd.stages.plan.route import Route, plan_route
from nimbusd.stages.types import F64, BoolArray

LEAST_APART_M = 2.0


class TriangleChecker:
    """Clearance of a vertical cylinder's axis by brute force: clipped triangles, point-to-edge distances."""

    def __init__(self, scene: Scene, low_m: float, high_m: float) -> None:
        soup = np.concatenate([obj.world_vertices()[obj.faces] for obj in scene.objects])
        z = soup[:, :, 2]
        soup = soup[(z.max(axis=1) >= low_m) & (z.min(axis=1) <= high_m)]
        z = soup[:, :, 2]
        whole = (z.min(axis=1) >= low_m) & (z.max(axis=1) <= high_m)
        parts = [soup[whole][:, :, :2]]
        for triangle in soup[~whole]:
            polygon = self._cut(self._cut(list(triangle), low_m, 1.0), high_m, -1.0)
            fan = [[polygon[0], polygon[i], polygon[i + 1]] for i in range(1, len(polygon) - 1)]
            if fan:
                parts.append(np.array(fan)[:, :, :2])
        self.triangles = np.concatenate(parts)
        self.low, self.high = self.triangles.min(axis=1), self.triangles.max(axis=1)

    @staticmethod
    def _cut(polygon: list[F64], z_m: float, side: float) -> list[F64]:
        """Sutherland and Hodgman: the part of a polygon above (side 1) or below (side -1) a height."""
        kept: list[F64] = []
        for here, after in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            a, b = side * (here[2] - z_m), side * (after[2] - z_m)
            if a >= 0:
                kept.append(here)
            if a * b < 0:
                kept.append(here + a / (a - b) * (after - here))
        return kept

    def clearance(self, path_xy: F64, within_m: float) -> float:
        """Least distance of any point to any triangle, exact where below within_m; else at least within_m."""
        best = within_m
        for start in range(0, len(path_xy), 50):
            points = path_xy[start : start + 50]
            near = ((self.low <= points.max(axis=0) + within_m) & (self.high >= points.min(axis=0) - within_m)).all(
                axis=1
            )
            if near.any():
                best = min(best, float(self._distances(points, self.triangles[near]).min()))
        return best

    @staticmethod
    def _distances(points: F64, triangles: F64) -> F64:
        p = points[:, None, :]
        inside_left = np.ones((len(points), len(triangles)), np.bool_)
        inside_right = inside_left.copy()
        best = np.full(inside_left.shape, np.inf)
        for k in range(3):
            a, b = triangles[None, :, k], triangles[None, :, (k + 1) % 3]
            edge, to_point = b - a, p - a
            share = np.clip((to_point * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-18), 0.0, 1.0)
            best = np.minimum(best, np.linalg.norm(to_point - share[..., None] * edge, axis=-1))
            cross = edge[..., 0] * to_point[..., 1] - edge[..., 1] * to_point[..., 0]
            inside_left &= cross > 0
            inside_right &= cross < 0
        return np.asarray(np.where(inside_left | inside_right, 0.0, best))


def load(path: Path, up_axis: str) -> Scene:
    """The mesh as a scene; `auto` takes the axis along which it is flattest for up."""
    if up_axis == "auto":
        scene = load(path, "z")
        low, high = scene.bounds()
        return scene if (high - low)[2] <= (high - low)[1] else load(path, "y")
    config = MeshConfig.model_validate({"name": path.stem, "path": path, "up_axis": up_axis, "light": "none"})
    return BProcObjLoader(MeshArgs()).load_asset(config)


def random_pairs(floor: FloorMap, count: int, rng: np.random.Generator) -> list[tuple[F64, F64]]:
    cells = np.argwhere(floor.free)
    pairs: list[tuple[F64, F64]] = []
    while len(pairs) < count:
        start, goal = floor.centres(cells[rng.integers(len(cells), size=2)])
        if np.linalg.norm(goal - start) >= LEAST_APART_M:
            pairs.append((start, goal))
    return pairs


def run_pairs(
    scene: Scene, args: NavArgs, floors: tuple[FloorMap, ...], count: int, seed: int
) -> tuple[dict[str, Any], list[tuple[FloorMap, Route]]]:
    rng = np.random.default_rng(seed)
    routes: list[tuple[FloorMap, Route]] = []
    reasons: Counter[str] = Counter()
    seconds, detours, margins = [], [], []
    reachable = collisions = straight_collisions = corners = 0
    share = np.array([floor.free_area_m2 for floor in floors])
    counts = rng.multinomial(count, share / share.sum())
    for floor, pairs in zip(floors, counts, strict=True):
        checker = TriangleChecker(scene, floor.z_m + args.step_m, floor.z_m + args.robot_height_m)
        for start, goal in random_pairs(floor, int(pairs), rng):
            shortest = search(np.where(floor.free, 1.0, np.inf), floor.cell_of(start), floor.cell_m)
            shortest_m = float(shortest.cost[floor.cell_of(goal)])
            reachable += np.isfinite(shortest_m)
            began = _clocks()
            try:
                route = plan_route(floor, args.comfort, start, goal)
            except PlanningFailed as failure:
                reasons[failure.reason] += 1
                continue
            seconds.append(_clocks() - began)
            measured = checker.clearance(route.xy, 2 * args.robot_radius_m)
            collisions += measured < args.robot_radius_m
            straight = start + np.linspace(0, 1, int(np.linalg.norm(goal - start) / 0.005))[:, None] * (goal - start)
            straight_collisions += checker.clearance(straight, 2 * args.robot_radius_m) < args.robot_radius_m
            margins.append(measured)
            detours.append(route.length_m / shortest_m)
            corners += len(route.pieces) - 1
            routes.append((floor, route))
    figures = {
        "pairs": count,
        "reachable pairs": reachable,
        "planned": len(routes),
        "planned of reachable, %": 100 * len(routes) / max(reachable, 1),
        "colliding paths (independent check, 5 mm)": collisions,
        "colliding straight lines between the same pairs": straight_collisions,
        "least clearance of the axis, m": min(margins, default=float("nan")),
        "corners left sharp": corners,
        "length / shortest grid path, median": float(np.median(detours)),
        "length / shortest grid path, worst": float(np.max(detours)),
        **_times("pair", seconds),
        "failures": dict(reasons),
    }
    return figures, routes


def run_episodes(scene: Scene, planner: NavPlanner[NavArgs], count: int) -> dict[str, Any]:
    seconds, frames = [], []
    reasons: Counter[str] = Counter()
    for seed in range(count):
        began = _clocks()
        try:
            sequence = planner.gen_sequence(scene, np.random.default_rng(seed))
        except PlanningFailed as failure:
            reasons[failure.reason] += 1
        else:
            frames.append(len(sequence))
        seconds.append(_clocks() - began)
    return {
        "episodes": count,
        "episodes planned": len(frames),
        **_times("episode", seconds),
        "frames per episode, median": float(np.median(frames)),
        "episode failures": dict(reasons),
    }


def _clocks() -> F64:
    """Wall clock and CPU seconds of this process: the second does not grow when others use the machine, too."""
    return np.array([time.perf_counter(), time.process_time()])


def _times(what: str, seconds: list[F64]) -> dict[str, float]:
    median, worst = 1e3 * np.median(seconds, axis=0), 1e3 * np.max(seconds, axis=0)
    return {
        f"time per {what}, median ms": float(median[0]),
        f"time per {what}, worst ms": float(worst[0]),
        f"CPU time per {what}, median ms": float(median[1]),
        f"CPU time per {what}, worst ms": float(worst[1]),
    }


def compare_map(scene: Scene, path: Path, z_m: float, lidar_m: float) -> dict[str, Any]:
    """Free space of a ROS map against ours, neither inflated: what a lidar plane 2 cm thick would hit.

    On cells that the map knows (free or occupied). A cell of ours is free if there is floor under it and no
    obstacle within half a cell of its centre. `shift` is the offset of the map, of all within 0.3 m, that fits best.
    """
    meta = yaml.safe_load(path.read_text())
    image = np.asarray(Image.open(path.parent / meta["image"]).convert("L"))[::-1]  # row 0 is the lowest y
    occupancy = (255 - image) / 255
    cell = float(meta["resolution"])
    known_free, occupied = occupancy < meta["free_thresh"], occupancy > meta["occupied_thresh"]
    thin = MapArgs(cell_m=cell, robot_radius_m=cell / 2, robot_height_m=lidar_m + 0.01, step_m=lidar_m - 0.01)
    floor = floor_map(scene, thin, z_m)
    unblocked = _unblocked(floor)

    def overlap(dx: int, dy: int) -> float:
        ours = np.zeros(image.shape, np.bool_)
        left = round((floor.origin_xy[0] - meta["origin"][0]) / cell) + dx
        bottom = round((floor.origin_xy[1] - meta["origin"][1]) / cell) + dy
        height, width = floor.esdf.shape
        r0, c0 = max(bottom, 0), max(left, 0)
        r1, c1 = min(bottom + height, image.shape[0]), min(left + width, image.shape[1])
        ours[r0:r1, c0:c1] = unblocked[r0 - bottom : r1 - bottom, c0 - left : c1 - left]
        known = known_free | occupied
        return float((ours & known_free).sum() / ((ours | known_free) & known).sum())

    reach = round(0.3 / cell)
    best = max(
        (overlap(dx, dy), -abs(dx) - abs(dy), dx, dy)
        for dx in range(-reach, reach + 1)
        for dy in range(-reach, reach + 1)
    )
    return {
        "lidar height, m": lidar_m,
        "map: free / occupied cells": f"{known_free.sum()} / {occupied.sum()}",
        "IoU of free space, map as it is": overlap(0, 0),
        "IoU of free space, map shifted": best[0],
        "IoU if every cell were called free": float(known_free.sum() / (known_free | occupied).sum()),
        "shift x, y in m": f"{best[2] * cell:+.2f}, {best[3] * cell:+.2f}",
    }


def _unblocked(floor: FloorMap) -> BoolArray:
    row, column = np.indices(floor.esdf.shape)
    centres = floor.centres(np.column_stack([row.ravel(), column.ravel()]))
    return np.asarray(floor.obstacles.clearance(centres).reshape(row.shape) > floor.cell_m / 2)


def plot(path: Path, floor: FloorMap, routes: list[Route], scale: int = 4) -> None:
    """Obstacles black, places for the robot's axis light green, paths coloured with a dot at the start."""
    rgb = np.full((*floor.free.shape, 3), 255, np.uint8)
    rgb[floor.free] = (205, 240, 205)
    rgb[floor.occupancy] = 30
    image = Image.fromarray(rgb[::-1]).resize((rgb.shape[1] * scale, rgb.shape[0] * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for number, route in enumerate(routes):
        color = tuple(int(v) for v in np.random.default_rng(number).integers(0, 210, 3))
        pixel = (route.xy - floor.origin_xy) / floor.cell_m * scale
        line = [(float(x), float(image.height - y)) for x, y in pixel]
        draw.line(line, fill=color, width=2)
        x, y = line[0]
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=color)
    image.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--up-axis", choices=("auto", "y", "z"), default="auto")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--map", type=Path, help="map.yaml of a ROS occupancy map of the same place")
    parser.add_argument("--lidar-height", type=float, default=0.18, metavar="M", help="of the robot that made the map")
    parser.add_argument("--plot", type=Path, help="write the lowest floor with 20 paths as a PNG")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    scene = load(options.mesh, options.up_axis)
    args = NavArgs()
    planner = NavPlanner(args)
    began = _clocks()
    floors = planner.floors(scene)
    took = _clocks() - began
    if not floors or not any(floor.free.any() for floor in floors):
        parser.error(f"{options.mesh}: no floor with room for a robot; check --up-axis")
    figures: dict[str, Any] = {
        "triangles": sum(len(obj.faces) for obj in scene.objects),
        "floors, m": [round(floor.z_m, 2) for floor in floors],
        "free area, m²": sum(floor.free_area_m2 for floor in floors),
        "time to make the maps, s": float(took[0]),
        "CPU time to make the maps, s": float(took[1]),
    }
    pairs, routes = run_pairs(scene, args, floors, options.pairs, options.seed)
    figures |= pairs | run_episodes(scene, planner, options.episodes)
    if options.map:
        figures |= compare_map(scene, options.map, floors[0].z_m, options.lidar_height)
    if options.plot:
        plot(options.plot, floors[0], [route for floor, route in routes if floor is floors[0]][:20])
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"{name:<48} {f'{value:.3f}' if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()
