"""Moving furniture about: small shifts and turns that collide with nothing and block no door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nimbusd.stages.types import F64, Scene, SceneObject

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_STRUCTURE = ("wall", "floor", "ceiling", "door", "window", "baseboard", "stairs", "column")
# What ends this low above the ground (thresholds, rugs under a chair's feet) is in nobody's way.
_STEP_M = 0.03


@dataclass(frozen=True, slots=True)
class PoseRules:
    """move: probability to try an object. shift_m, yaw_rad: largest change. tries: poses drawn per object.

    clearance_m: distance to everything else. door_clearance_m: distance to doors.
    """

    move: float
    shift_m: float
    yaw_rad: float
    clearance_m: float
    door_clearance_m: float
    tries: int


@dataclass(frozen=True, slots=True)
class _Body:
    """An object in the plan: convex footprint, and from where to where it reaches in height."""

    footprint: BaseGeometry
    low_m: float
    high_m: float

    def meets(self, other: _Body, clearance_m: float) -> bool:
        apart = self.low_m >= other.high_m or other.low_m >= self.high_m
        return not apart and bool(self.footprint.distance(other.footprint) < clearance_m + 1e-9)


def footprint(obj: SceneObject) -> BaseGeometry:
    """Convex hull of the object in the world's x, y."""
    import shapely

    return shapely.MultiPoint(obj.world_vertices()[:, :2]).convex_hull


def move_objects(
    scene: Scene, rules: PoseRules, rng: np.random.Generator, beat: Callable[[], None]
) -> tuple[SceneObject, ...]:
    """The scene's objects, movable ones at new poses where a free one was found; the others are the same objects.

    A moved object keeps its height and stays on the floor of its room (of the scene where there are no rooms),
    its footprint at least `clearance_m` from everything at its height. What carries something is not moved.
    """
    bodies = {obj.name: _body(obj) for obj in scene.objects if obj.category not in ("floor", "ceiling")}
    walls = _Fixtures([obj for obj in scene.objects if not obj.movable and obj.category not in ("floor", "ceiling")])
    doors = [bodies[obj.name] for obj in scene.objects if obj.category == "door"]
    floors = _Floors(scene)
    movable = {obj.name for obj in scene.objects if obj.movable}

    def first_free(obj: SceneObject) -> SceneObject:
        """The object at the first of its candidates where nothing is in its way, or where it was."""
        body = bodies[obj.name]
        ground = floors.below(body)
        others = [bodies[name] for name in sorted(movable - {obj.name})]
        for candidate, new in _candidates(obj, body, rules, rng):
            if (
                (ground is None or ground.covers(new.footprint))
                and not any(new.meets(door, rules.door_clearance_m) for door in doors)
                and not walls.meet(new, body, rules.clearance_m)
                and not any(new.meets(other, rules.clearance_m) for other in others)
            ):
                bodies[obj.name] = new
                return candidate
        return obj

    objects: list[SceneObject] = []
    for obj in scene.objects:
        beat()
        moves = obj.movable and rng.random() < rules.move and not _carries(obj, scene.objects, bodies)
        objects.append(first_free(obj) if moves else obj)
    return tuple(objects)


def _candidates(
    obj: SceneObject, body: _Body, rules: PoseRules, rng: np.random.Generator
) -> Iterator[tuple[SceneObject, _Body]]:
    """The object shifted and turned at random, as often as the rules allow."""
    for _ in range(rules.tries):
        shift = rules.shift_m * np.sqrt(rng.random()) * _direction(rng)
        candidate = _moved(obj, body, shift, float(rng.uniform(-rules.yaw_rad, rules.yaw_rad)))
        yield candidate, _body(candidate)


class _Fixtures:
    """The triangles of what stands still, found by place."""

    def __init__(self, objects: list[SceneObject]) -> None:
        import shapely

        corners = [obj.world_vertices()[obj.faces] for obj in objects]
        self.triangles = np.concatenate(corners) if corners else np.zeros((0, 3, 3))
        self.low_m, self.high_m = self.triangles[..., 2].min(axis=1), self.triangles[..., 2].max(axis=1)
        shapes = shapely.convex_hull(shapely.multipoints(self.triangles[..., :2]))
        self.tree = shapely.STRtree(shapes)

    def meet(self, new: _Body, old: _Body, clearance_m: float) -> bool:
        """True where `new` comes too close to a triangle at its height, or went through one on its way."""
        import shapely

        way = shapely.LineString([old.footprint.centroid, new.footprint.centroid])
        near = self.tree.query(new.footprint, predicate="dwithin", distance=clearance_m)
        crossed = self.tree.query(way, predicate="intersects")
        at = np.concatenate([near, crossed]).astype(int)
        return bool(((self.high_m[at] > new.low_m + _STEP_M) & (self.low_m[at] < new.high_m)).any())


class _Floors:
    """The ground that objects may stand on: rooms, or else the scene's floor surfaces."""

    def __init__(self, scene: Scene) -> None:
        import shapely

        if scene.rooms:
            self.grounds = [(shapely.Polygon(room.polygon), room.z_m) for room in scene.rooms]
        else:
            corners = [obj.world_vertices()[obj.faces] for obj in scene.objects if obj.category == "floor"]
            self.grounds = [_plan_of(triangles) for triangles in corners]

    def below(self, body: _Body) -> BaseGeometry | None:
        """The ground under the middle of the object; None where none is known."""
        centre = body.footprint.centroid
        under = [(z, ground) for ground, z in self.grounds if z <= body.low_m + 0.3 and ground.contains(centre)]
        return max(under, key=lambda entry: entry[0])[1] if under else None


def _plan_of(triangles: F64) -> tuple[BaseGeometry, float]:
    """Union of (F, 3, 3) triangles in the plan, and its height."""
    import shapely

    shapes = shapely.convex_hull(shapely.multipoints(triangles[..., :2]))
    return shapely.union_all(shapely.buffer(shapes, 1e-3)), float(np.median(triangles[..., 2]))


def _body(obj: SceneObject) -> _Body:
    z = obj.world_vertices()[:, 2]
    return _Body(footprint(obj), float(z.min()), float(z.max()))


def _carries(obj: SceneObject, objects: tuple[SceneObject, ...], bodies: dict[str, _Body]) -> bool:
    """True where something stands on or in the object: it would be left behind."""
    body = bodies[obj.name]
    others = (bodies[other.name] for other in objects if other is not obj and other.category not in _STRUCTURE)
    return any(
        body.low_m + 0.1 < above.low_m < body.high_m + 0.05 and body.footprint.intersects(above.footprint)
        for above in others
    )


def _direction(rng: np.random.Generator) -> F64:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _moved(obj: SceneObject, body: _Body, shift: F64, yaw_rad: float) -> SceneObject:
    """The object turned about the middle of its footprint, then shifted."""
    centre = np.array([body.footprint.centroid.x, body.footprint.centroid.y])
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    T = np.eye(4)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:2, 3] = centre + shift - T[:2, :2] @ centre
    return replace(obj, T_world_object=T @ obj.T_world_object)
