"""NavPlanner: a wheeled robot with cameras drives from a sampled start to a sampled goal."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, model_validator

from nimbusd.stages.base import BasePlanner, ComponentArgs
from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.plan.grid_search import Cell, Search
from nimbusd.stages.plan.instructions import Landmark, instruction, landmarks
from nimbusd.stages.plan.occupancy import FloorMap, MapArgs, floor_maps
from nimbusd.stages.plan.route import Route, explore, plan_route
from nimbusd.stages.plan.smooth import Comfort
from nimbusd.stages.plan.timing import DriveLimits, TimedPath, body_velocity, time_path
from nimbusd.stages.types import F64, BoolArray, Camera, Feature, Scene, Sequence

FEWEST_FRAMES = 8
"""Shorter drives are no episodes."""

_SCENES_KEPT = 4
_CELLS_KEPT = 50_000_000  # some 10 bytes each; the scene in use is kept whatever its size
_POLYLINE_POINTS = 200

Point = Annotated[tuple[float, float], Field(description="x, y in metres, world frame")]


class CameraArgs(ComponentArgs):
    """A camera on the robot. Intrinsics from hfov_rad, or from fx (and fy, cx, cy) in pixels where given.

    height_m, pitch_rad: instead of the planner's own. yaw_rad: to the left of where the robot looks.
    """

    name: str = Field(default="front", pattern=r"^[a-z][a-z0-9_]*$")
    width: int = Field(default=320, ge=8, le=8192)
    height: int = Field(default=240, ge=8, le=8192)
    hfov_rad: float = Field(default=1.22, gt=0.05, lt=3.0)
    fx: float | None = Field(default=None, gt=0)
    fy: float | None = Field(default=None, gt=0)
    cx: float | None = None
    cy: float | None = None
    height_m: float | None = Field(default=None, gt=0)
    pitch_rad: float | None = Field(default=None, gt=-1.58, lt=1.58)
    yaw_rad: float = 0.0

    def intrinsics(self) -> Camera:
        """The pinhole camera: square pixels and a centred principal point unless said otherwise."""
        fx = self.fx if self.fx is not None else self.width / 2 / float(np.tan(self.hfov_rad / 2))
        fy = self.fy if self.fy is not None else fx
        cx = self.cx if self.cx is not None else self.width / 2
        cy = self.cy if self.cy is not None else self.height / 2
        return Camera(self.name, self.width, self.height, fx, fy, cx, cy)


class NavArgs(MapArgs):
    """Arguments of NavPlanner. Lengths in metres, angles in radians, times in seconds.

    camera_pitch_rad: upwards is positive. comfort_clearance_m: beyond this distance the path does not care how
    far obstacles are; clearance_weight: how much longer a path may get to keep it (a metre at the closest costs
    1 + weight metres). max_frames: goals are chosen so that the drive fits. start_xy_m, goal_xy_m: fixed instead
    of sampled, on the lowest floor where the start is free. prefer_other_room: goals lie in another room than the
    start where there is one.
    random_start_heading: begin with a turn on the spot instead of looking along the path.
    """

    fps: float = Field(default=10.0, gt=0, le=240)
    cameras: tuple[CameraArgs, ...] = Field(default=(CameraArgs(),), min_length=1)
    camera_height_m: float = Field(default=1.0, gt=0)
    camera_pitch_rad: float = Field(default=-0.15, gt=-1.58, lt=1.58)
    comfort_clearance_m: float = Field(default=0.6, gt=0)
    clearance_weight: float = Field(default=3.0, ge=0)
    min_path_m: float = Field(default=2.0, ge=0)
    max_path_m: float | None = Field(default=None, gt=0)
    max_frames: int = Field(default=120, ge=FEWEST_FRAMES)
    max_speed_mps: float = Field(default=1.0, gt=0)
    max_accel_mps2: float = Field(default=1.0, gt=0)
    max_turn_radps: float = Field(default=1.2, gt=0)
    max_pairs: int = Field(default=20, ge=1)
    start_xy_m: Point | None = None
    goal_xy_m: Point | None = None
    prefer_other_room: bool = True
    random_start_heading: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> NavArgs:
        if self.max_path_m is not None and self.max_path_m < self.min_path_m:
            raise ValueError(f"max_path_m ({self.max_path_m}) is below min_path_m ({self.min_path_m})")
        if self.robot_height_m <= self.step_m:
            raise ValueError(f"robot_height_m ({self.robot_height_m}) does not reach above step_m ({self.step_m})")
        names = [camera.name for camera in self.cameras]
        if len(set(names)) < len(names):
            raise ValueError(f"two cameras share a name: {', '.join(names)}")
        for camera in self.cameras:
            if (camera.height_m or self.camera_height_m) > self.robot_height_m:
                raise ValueError(
                    f"camera {camera.name!r} sits above robot_height_m ({self.robot_height_m}), where nothing keeps it "
                    "out of obstacles; make robot_height_m at least the camera's height"
                )
        return self

    @property
    def limits(self) -> DriveLimits:
        return DriveLimits(self.max_speed_mps, self.max_accel_mps2, self.max_turn_radps)

    @property
    def comfort(self) -> Comfort:
        return Comfort(self.safe_m, max(self.comfort_clearance_m, self.safe_m), self.clearance_weight)

    @property
    def reach_m(self) -> float:
        """Clearances beyond this are not told apart: none of them costs anything."""
        return max(self.comfort_clearance_m, self.safe_m) + 2 * self.cell_m

    @property
    def longest_path_m(self) -> float:
        """The lesser of max_path_m and what fits max_frames with time to speed up, brake and take curves."""
        duration_s = (self.max_frames - 1) / self.fps
        ramp_s = min(self.max_speed_mps / self.max_accel_mps2, duration_s / 2)
        fits_m = 0.85 * ramp_s * self.max_accel_mps2 * (duration_s - ramp_s)
        return fits_m if self.max_path_m is None else min(self.max_path_m, fits_m)


N = TypeVar("N", bound=NavArgs)


@dataclass(frozen=True)
class _Known:
    """Maps and landmarks that were derived from one scene."""

    floors: tuple[FloorMap, ...]
    things: tuple[Landmark, ...]

    @property
    def cells(self) -> int:
        return sum(floor.free.size for floor in self.floors)


class NavPlanner(BasePlanner[N]):
    """Samples a floor, a start and a goal, and plans a drive between them.

    Needs no other randomness than `rng`; the same scene and generator give the same sequence. PlanningFailed
    reasons: no_floor, no_free_space, start_blocked, goal_blocked, unreachable, too_short, too_long,
    collision_after_smoothing. With several pairs tried, the most frequent one.
    """

    args_model = NavArgs
    version = "1.1.0"
    requires = ("scipy", "shapely", "skimage")

    def __init__(self, args: N) -> None:
        super().__init__(args)
        self._known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()

    def close(self) -> None:
        self._known.clear()

    def floors(self, scene: Scene) -> tuple[FloorMap, ...]:
        """The scene's floor maps, lowest first; kept for the scenes used last."""
        return self._look_at(scene).floors

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        known = self._look_at(scene)
        if not known.floors:
            raise PlanningFailed(
                "no_floor", f"scene {scene.name!r} has no floor: no large surface faces up, and no rooms"
            )
        failures: Counter[str] = Counter()
        detail: dict[str, str] = {}
        for pair in range(1, self.args.max_pairs + 1):
            self.beat()
            try:
                floor, start, goal, found = self._sample(known.floors, rng)
                route = plan_route(floor, self.args.comfort, start, goal, found)
                timed = self._drive(route, rng)
                return self._sequence(known, floor, route, timed, pair)
            except PlanningFailed as failure:
                failures[failure.reason] += 1
                detail.setdefault(failure.reason, failure.detail)
                if failure.reason in ("no_free_space", "start_blocked", "goal_blocked"):
                    break  # another pair would meet the same
        reason = failures.most_common(1)[0][0]
        tried = ", ".join(f"{name} {count}x" for name, count in failures.items())
        raise PlanningFailed(reason, f"scene {scene.name!r}: {detail[reason]} (tried: {tried})")

    def start_cells(self, floor: FloorMap) -> BoolArray:
        """(H, W) True where an episode may begin. With rooms: inside one."""
        return floor.free & (floor.room >= 0) if floor.rooms else floor.free

    def goal_cells(self, floor: FloorMap, start: Cell) -> BoolArray:
        """(H, W) True where an episode that begins in cell `start` may end."""
        return self.start_cells(floor)

    def _look_at(self, scene: Scene) -> _Known:
        key = (scene.content_hash, *((r.name, r.category, r.z_m, r.polygon.tobytes()) for r in scene.rooms))
        if key not in self._known:
            self._known[key] = _Known(floor_maps(scene, self.args, self.beat), landmarks(scene))
        self._known.move_to_end(key)
        while len(self._known) > 1 and (
            len(self._known) > _SCENES_KEPT or sum(known.cells for known in self._known.values()) > _CELLS_KEPT
        ):
            self._known.popitem(last=False)
        return self._known[key]

    def _sample(
        self, floors: tuple[FloorMap, ...], rng: np.random.Generator
    ) -> tuple[FloorMap, F64, F64, Search | None]:
        allowed = [self.start_cells(floor) for floor in floors]
        area = np.array([np.count_nonzero(cells) for cells in allowed], np.float64)
        if self.args.start_xy_m is not None:
            start = np.array(self.args.start_xy_m, np.float64)
            fits = [i for i, f in enumerate(floors) if f.free[f.cell_of(start)] and self._has_room(f, start)]
            if not fits:
                raise PlanningFailed("start_blocked", f"start_xy_m {self.args.start_xy_m} is blocked on every floor")
            floor = floors[fits[0]]
        elif not area.any():
            raise PlanningFailed(
                "no_free_space",
                f"no place to begin for a robot of radius {self.args.robot_radius_m} m and height "
                f"{self.args.robot_height_m} m",
            )
        else:
            number = int(rng.choice(len(floors), p=area / area.sum()))
            floor = floors[number]
            start = self._point_in(floor, allowed[number], rng)
        if self.args.goal_xy_m is not None:
            return floor, start, np.array(self.args.goal_xy_m, np.float64), None
        goal, found = self._goal(floor, floor.cell_of(start), rng)
        return floor, start, goal, found

    def _goal(self, floor: FloorMap, start: Cell, rng: np.random.Generator) -> tuple[F64, Search]:
        wanted = self.goal_cells(floor, start)
        reached = wanted & (floor.region == floor.region[start])
        if not reached.any():
            where = "the goal's rooms have no free space" if not wanted.any() else "no goal is connected with the start"
            raise PlanningFailed("unreachable", f"{where} at {floor.centres([start])[0].round(2)}")
        # A path is never longer than its cost. What lies outside the window is too far in any case.
        least_m, most_m = self.args.min_path_m, self.args.longest_path_m
        found = explore(floor, self.args.comfort, start, max(least_m, most_m))
        near = reached[found.window]
        far = near & (found.cost >= least_m)
        if not far.any() and np.count_nonzero(near) == np.count_nonzero(reached):
            raise PlanningFailed("too_short", f"no goal is {least_m} m away from the start")
        fits = far & (found.cost <= most_m)
        if not fits.any():
            raise PlanningFailed("too_long", f"every goal is more than {most_m:.1f} m away")
        here, room = int(floor.room[start]), floor.room[found.window]
        if self.args.prefer_other_room and (fits & (room >= 0) & (room != here)).any():
            fits &= (room >= 0) & (room != here)
        if floor.rooms:  # a room first, so that small rooms are visited as often as large ones
            fits &= room == rng.choice(np.unique(room[fits]))
        return self._point_in(floor, fits, rng, (found.window[0].start, found.window[1].start)), found

    def _point_in(self, floor: FloorMap, cells: BoolArray, rng: np.random.Generator, first: Cell = (0, 0)) -> F64:
        """A point anywhere in one of the cells, or its centre where only that is clear of obstacles.

        cells: (h, w) of a part of the map that begins at cell `first`.
        """
        up_to_row = np.cumsum(np.count_nonzero(cells, axis=1))
        number = int(rng.integers(up_to_row[-1]))
        row = int(np.searchsorted(up_to_row, number, side="right"))
        columns = np.flatnonzero(cells[row])
        column = int(columns[number - up_to_row[row]])  # counted from the row's end, so negative
        centre = floor.centres([(row + first[0], column + first[1])])[0]
        point = centre + rng.uniform(-0.49, 0.49, 2) * floor.cell_m
        return np.asarray(point if self._has_room(floor, point) else centre)

    def _has_room(self, floor: FloorMap, xy: F64) -> bool:
        return bool(floor.obstacles.clearance(xy[None])[0] >= self.args.safe_m)

    def _drive(self, route: Route, rng: np.random.Generator) -> TimedPath:
        if route.length_m < self.args.min_path_m:
            raise PlanningFailed("too_short", f"the path is {route.length_m:.2f} m, below {self.args.min_path_m} m")
        if self.args.max_path_m is not None and route.length_m > self.args.max_path_m:
            raise PlanningFailed("too_long", f"the path is {route.length_m:.2f} m, above {self.args.max_path_m} m")
        start_yaw = float(rng.uniform(-np.pi, np.pi)) if self.args.random_start_heading else None
        timed = time_path(list(route.pieces), self.args.limits, self.args.fps, start_yaw)
        if len(timed.yaw) < FEWEST_FRAMES:
            raise PlanningFailed("too_short", f"the drive takes {len(timed.yaw)} frames; {FEWEST_FRAMES} are the least")
        if len(timed.yaw) > self.args.max_frames:
            raise PlanningFailed("too_long", f"the drive takes {len(timed.yaw)} frames, above {self.args.max_frames}")
        return timed

    def _sequence(self, known: _Known, floor: FloorMap, route: Route, timed: TimedPath, pairs: int) -> Sequence:
        args = self.args
        z = np.full(len(timed.yaw), floor.z_m)
        wrapped = np.arctan2(np.sin(timed.yaw), np.cos(timed.yaw))
        state = np.column_stack([timed.xy, z, wrapped]).astype(np.float32)
        action = body_velocity(timed, args.fps).astype(np.float32)
        T_world_base = base_poses(timed.xy, timed.yaw, floor.z_m)
        mounts = {camera.name: camera_mount(camera, args) for camera in args.cameras}
        notes: dict[str, Any] = {
            "start": [*timed.xy[0].tolist(), floor.z_m, float(wrapped[0])],
            "goal": [*timed.xy[-1].tolist(), floor.z_m, float(wrapped[-1])],
            "floor_z_m": floor.z_m,
            "path_length_m": route.length_m,
            "min_clearance_m": route.min_clearance_m,
            "pairs_tried": pairs,
            "path_xy": _thinned(route.xy).round(4).tolist(),
        }
        return Sequence(
            fps=args.fps,
            task=instruction(floor, known.things, timed.xy[0], timed.xy[-1]),
            cameras=tuple(camera.intrinsics() for camera in args.cameras),
            T_world_camera={name: T_world_base @ mount for name, mount in mounts.items()},
            T_base_camera=mounts,
            states={"observation.state": Feature(state, ("x", "y", "z", "yaw"))},
            actions={"action": Feature(action, ("forward_mps", "left_mps", "yaw_radps"))},
            notes=notes,
        )


def base_poses(xy: F64, yaw: F64, z_m: float) -> F64:
    """(T, 4, 4) T_world_base of a robot that stands on a floor: x forward, y left, z up."""
    poses = np.tile(np.eye(4), (len(yaw), 1, 1))
    c, s = np.cos(yaw), np.sin(yaw)
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = c, -s, s, c
    poses[:, :2, 3], poses[:, 2, 3] = xy, z_m
    return poses


def camera_mount(camera: CameraArgs, args: NavArgs) -> F64:
    """(4, 4) T_base_camera, OpenGL axes: on the robot's axis, turned left by yaw, then up by pitch."""
    pitch = camera.pitch_rad if camera.pitch_rad is not None else args.camera_pitch_rad
    c, s = np.cos(camera.yaw_rad), np.sin(camera.yaw_rad)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    look_forward = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # columns: right, up, back
    c, s = np.cos(pitch), np.sin(pitch)
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    T = np.eye(4)
    T[:3, :3] = turn @ look_forward @ tilt
    T[2, 3] = camera.height_m if camera.height_m is not None else args.camera_height_m
    return T


def _thinned(xy: F64) -> F64:
    return np.asarray(xy[np.unique(np.linspace(0, len(xy) - 1, min(len(xy), _POLYLINE_POINTS)).astype(int))])
