"""Draws what stands on the table: which models, their sizes, colours, masses and places."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.layout.labels import FIRST_OBJECT_ID
from nimbusd.stages.workflow.sim.layout.layout import ObjectLayout, Pose, RegionLayout, Surface
from nimbusd.stages.workflow.sim.models.fixtures import needed_space
from nimbusd.stages.workflow.sim.models.objects import ObjectModel, mass_kg, own_size
from nimbusd.stages.workflow.sim.rotation import Vector, about, transform
from nimbusd.stages.workflow.sim.task.task import ManipTask, RandomizeSpec, SlotSpec

_PLACES = 200
"""Draws of a thing's place."""


def uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A number between the least and the most."""
    return float(rng.uniform(*limits))


def place_things(task: ManipTask, rng: np.random.Generator) -> tuple[list[ObjectLayout], list[RegionLayout]]:
    """Objects and regions of the task, drawn and put where none overlaps another.

    Raises PlanningFailed('no_layout') where there is no room.
    """
    objects: list[ObjectLayout] = []
    regions: list[RegionLayout] = []
    taken: list[tuple[float, float, float, float]] = []  # x, y and half edges of what stands already
    number = FIRST_OBJECT_ID
    used: set[tuple[str, str]] = set()
    # What stands still is placed first: it is larger and has less freedom.
    for slot in sorted(task.slots, key=lambda slot: not _is_fixed(task, slot)):
        for name, key in _drawn_models(slot, _plain(task, used), rng):
            entry = _draw_object(task, slot, name, key, number, used, rng)
            objects.append(_put(task, slot, entry, taken, rng))
            number += 1
    for spec in task.regions:
        for _ in range(_PLACES):
            x, y = uniform(rng, spec.x_m), uniform(rng, spec.y_m)
            if not _overlaps((x, y, spec.size_m[0] / 2, spec.size_m[1] / 2), taken, 0.01):
                break
        else:
            raise PlanningFailed("no_layout", f"there is no room for region {spec.name}")
        taken.append((x, y, spec.size_m[0] / 2, spec.size_m[1] / 2))
        pose = Pose((x, y, task.table.height_m + 0.0005))
        regions.append(RegionLayout(spec.name, number, pose, spec.size_m, spec.color, spec.visible))
        number += 1
    return objects, regions


def _is_fixed(task: ManipTask, slot: SlotSpec) -> bool:
    return slot.stands_still(task.object_model(slot.models[0]))


def _plain(task: ManipTask, used: set[tuple[str, str]]) -> set[str]:
    """Models that stand on the table already and come in one look only: a second one would look the same."""
    return {key for key, _ in used if not task.object_model(key).colors}


def _drawn_models(slot: SlotSpec, spent: set[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    count = int(rng.integers(slot.count[0], slot.count[1] + 1))
    pool: list[str] = []
    names = []
    for index in range(count):
        if not pool or not slot.distinct:
            left = [key for key in slot.models if key not in spent] if slot.distinct else []
            left = left or list(slot.models)
            pool = [left[i] for i in rng.permutation(len(left))]
        names.append((slot.object_names()[index], pool.pop()))
    return names


def _draw_object(
    task: ManipTask,
    slot: SlotSpec,
    name: str,
    key: str,
    number: int,
    used: set[tuple[str, str]],
    rng: np.random.Generator,
) -> ObjectLayout:
    model, spec = task.object_model(key), task.randomize
    fixed = _is_fixed(task, slot)
    scale = uniform(rng, spec.scale) if model.shape == "mesh" else 1.0
    size = slot.size_m or _draw_size(model, scale, spec, rng)
    color_name, surface = _draw_look(model, slot, key, used, rng)
    used.add((key, color_name))
    mass = mass_kg(model, size) * uniform(rng, spec.mass)
    return ObjectLayout(
        name=name,
        model=key,
        definition=model.model_copy(update={"noun": f"{color_name} {model.noun}".strip()}),
        category=model.category,
        instance_id=number,
        pose=Pose(),
        size_m=size,
        scale=scale,
        mass_kg=mass,
        friction=model.friction * uniform(rng, spec.friction),
        surface=surface,
        fixed=fixed,
        joint=slot.joint * model.travel,
        group=slot.name,
    )


def _draw_size(model: ObjectModel, scale: float, spec: RandomizeSpec, rng: np.random.Generator) -> Vector:
    low = np.asarray(own_size(model))
    high = np.asarray(model.size_max_m or low)
    size = low * scale if model.shape == "mesh" else low
    if spec.sizes and model.shape != "mesh":
        size = low + (high - low) * rng.random(3)
        if model.shape == "cylinder":
            size[1] = size[0]
    return float(size[0]), float(size[1]), float(size[2])


def _draw_look(
    model: ObjectModel, slot: SlotSpec, key: str, used: set[tuple[str, str]], rng: np.random.Generator
) -> tuple[str, Surface]:
    if not model.colors:
        shade = float(rng.uniform(0.85, 1.0))
        return "", Surface(color=(shade, shade, shade), own=True, gloss=float(rng.uniform(0.1, 0.4)))
    colors = dict(model.colors)
    free = [name for name in colors if (key, name) not in used] or list(colors)
    name = slot.color or free[int(rng.integers(len(free)))]
    if name not in colors:
        raise PlanningFailed("no_layout", f"slot {slot.name} wants colour {name!r}, which {key} does not come in")
    tint = np.clip(np.asarray(colors[name]) * rng.uniform(0.9, 1.1, 3), 0, 1)
    return name, Surface(color=(float(tint[0]), float(tint[1]), float(tint[2])), gloss=float(rng.uniform(0.05, 0.5)))


def _put(
    task: ManipTask, slot: SlotSpec, entry: ObjectLayout, taken: list[tuple[float, float, float, float]],
    rng: np.random.Generator,
) -> ObjectLayout:  # fmt: skip
    x0, x1, y0, y1 = needed_space(entry.definition, entry.size_m)
    half_x, half_y, half_z = (x1 - x0) / 2, (y1 - y0) / 2, entry.size_m[2] / 2
    for _ in range(_PLACES):
        x, y, yaw = uniform(rng, slot.x_m), uniform(rng, slot.y_m), uniform(rng, slot.yaw_rad)
        c, s = math.cos(yaw), math.sin(yaw)
        off_x, off_y = (x0 + x1) / 2, (y0 + y1) / 2
        box = (
            x + c * off_x - s * off_y, y + s * off_x + c * off_y,
            abs(c) * half_x + abs(s) * half_y, abs(s) * half_x + abs(c) * half_y,
        )  # fmt: skip
        if not _overlaps(box, taken, slot.gap_m):
            taken.append(box)
            height = task.table.height_m + half_z + (0.0 if entry.fixed else 0.0005)
            return replace(entry, pose=Pose.from_matrix(transform(about((0, 0, 1), yaw), (x, y, height))))
    raise PlanningFailed("no_layout", f"there is no room for {entry.name}")


def _overlaps(
    box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]], gap: float
) -> bool:
    return any(
        abs(box[0] - other[0]) < box[2] + other[2] + gap and abs(box[1] - other[1]) < box[3] + other[3] + gap
        for other in taken
    )
