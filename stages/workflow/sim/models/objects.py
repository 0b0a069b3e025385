"""Object models as data: things to grasp, and fixtures (bins, drawers, doors, buttons, knobs) made by code.

An object's frame has its origin at the centre of its bounding box, z up as it stands. `LIBRARY` has some; a task's
configuration may define its own in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.workflow.sim.models.mesh_shape import Up, mesh_shape
from nimbusd.stages.workflow.sim.numbers import Color, Name, Size, Words
from nimbusd.stages.workflow.sim.rotation import Vector

Shape: TypeAlias = Literal["mesh", "box", "cylinder", "bin", "drawer", "door", "button", "knob"]
JOINTED = ("drawer", "door", "button", "knob")
FIXTURES = ("bin", *JOINTED)
"""Shapes that stand still unless a task says otherwise."""

_LEAST_M: Mapping[Shape, Vector] = {
    "bin": (0.03, 0.03, 0.015),
    "drawer": (0.05, 0.06, 0.05),
    "door": (0.05, 0.09, 0.12),
    "button": (0.02, 0.02, 0.01),
    "knob": (0.02, 0.02, 0.02),
}
"""Shape → the smallest bounding box that its walls, handles and caps fit into."""

_LEAST_KG, _MOST_KG = 0.02, 0.4


class ObjectModel(ComponentArgs):
    """One kind of object.

    shape: `mesh` reads the file `mesh`; the others are made by code with `size_m`.
    category: word of the segmentation table.
    noun: the object in instructions.
    mesh: `package:path`, or a file.
    unit_m: metres in a unit of the file.
    up: the file's upward axis; empty follows its kind (y for .glb and .gltf, else z).
    texture: picture of a mesh that has texture coordinates, instead of the file's own.
    collision: what a mesh collides as; `parts` are convex pieces, for hollow things.
    size_m, size_max_m: x, y, z edges of the bounding box; least and most where a range.
    density: kg/m³.
    colors: it comes in these, by name.
    grasps: a JSON or npz file with grasps of its own, see `grasps`.
    travel: range of a fixture's joint, m or rad.
    hinge: the side of a door's hinge, as one sees it who stands before it.
    """

    shape: Shape
    category: Words
    noun: Words
    mesh: str = ""
    unit_m: float = Field(default=1.0, gt=0, le=1000)
    up: Up = ""
    texture: str = ""
    collision: Literal["hull", "parts", "box", "cylinder"] = "hull"
    size_m: Size | None = None
    size_max_m: Size | None = None
    density: float = Field(default=300.0, ge=1, le=25000)
    friction: float = Field(default=1.0, ge=0.01, le=10)
    colors: tuple[tuple[Name, Color], ...] = ()
    grasps: str = ""
    travel: float = Field(default=0.0, ge=0, le=6.2832)
    hinge: Literal["left", "right"] = "left"

    @model_validator(mode="after")
    def _sized(self) -> ObjectModel:
        if self.shape == "mesh" and not self.mesh:
            raise ValueError("an object of shape 'mesh' needs 'mesh', the file")
        if self.shape == "mesh":
            given = [name for name in ("size_m", "size_max_m") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a mesh is as large as its file says with 'unit_m'; leave '{given[0]}' out")
            return self
        if self.size_m is None:
            raise ValueError(f"an object of shape '{self.shape}' needs 'size_m'")
        if self.size_max_m is not None and any(a > b for a, b in zip(self.size_m, self.size_max_m, strict=True)):
            raise ValueError(f"size_m {list(self.size_m)} is in part more than size_max_m {list(self.size_max_m)}")
        for size in filter(None, (self.size_m, self.size_max_m)):
            if fault := size_fault(self, size):
                raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _moves(self) -> ObjectModel:
        names = [name for name, _ in self.colors]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of its colors are called '{twice}'")
        if self.shape not in JOINTED:
            if self.travel:
                raise ValueError(f"an object of shape '{self.shape}' has no joint; leave 'travel' out")
            return self
        assert self.size_m is not None
        most = {"drawer": self.size_m[0], "door": math.pi, "button": 0.4 * self.size_m[2], "knob": 2 * math.pi}
        if not 1e-3 <= self.travel <= most[self.shape] + 1e-9:
            text = f"of a {self.shape} of this size must be 0.001 to {most[self.shape]:.4g}, but is {self.travel:g}"
            raise ValueError(f"'travel' {text}")
        return self

    @property
    def is_fixture(self) -> bool:
        return self.shape in FIXTURES


def size_fault(model: ObjectModel, size_m: Vector) -> str:
    """The fault of an object of this kind, made by code with these edges; empty without one."""
    if model.shape == "mesh":
        return "a mesh is as large as its file says; `scale` of `randomize` changes it"
    least = _LEAST_M.get(model.shape, (0.0, 0.0, 0.0))
    if any(edge < low for edge, low in zip(size_m, least, strict=True)):
        return f"a {model.shape} must be {list(least)} m large or more, but is {list(size_m)}"
    if model.shape == "cylinder" and not math.isclose(size_m[0], size_m[1], abs_tol=1e-9):
        return f"a cylinder is round: its x and y edges must be equal, but are {size_m[0]:g} and {size_m[1]:g}"
    return ""


_COLORS = (
    ("red", (0.80, 0.15, 0.13)),
    ("green", (0.20, 0.60, 0.25)),
    ("blue", (0.16, 0.33, 0.75)),
    ("yellow", (0.93, 0.77, 0.15)),
    ("orange", (0.92, 0.48, 0.12)),
    ("purple", (0.48, 0.25, 0.62)),
    ("white", (0.90, 0.90, 0.88)),
)


def _packaged(name: str, noun: str, texture: str, collision: Literal["hull", "box", "cylinder"]) -> ObjectModel:
    return ObjectModel(
        shape="mesh",
        category=noun.replace(" ", "_"),
        noun=noun,
        mesh=f"robosuite:objects/meshes/{name}.msh",
        unit_m=0.9 if name == "milk" else 0.8 if name == "bread" else 1.0,
        texture=f"robosuite:textures/{texture}.png",
        collision=collision,
    )


def _door(hinge: Literal["left", "right"]) -> ObjectModel:
    return ObjectModel(
        shape="door",
        category="cabinet",
        noun="cabinet",
        size_m=(0.15, 0.20, 0.16),
        size_max_m=(0.19, 0.24, 0.22),
        colors=_COLORS,
        travel=1.57,
        hinge=hinge,
    )


LIBRARY: dict[str, ObjectModel] = {
    "milk": _packaged("milk", "milk carton", "ceramic", "hull"),
    "can": _packaged("can", "can", "soda", "cylinder"),
    "bread": _packaged("bread", "bread", "bread", "hull"),
    "cereal": _packaged("cereal", "cereal box", "cereal", "box"),
    "cube": ObjectModel(
        shape="box",
        category="cube",
        noun="cube",
        size_m=(0.035, 0.035, 0.035),
        size_max_m=(0.05, 0.05, 0.05),
        colors=_COLORS,
    ),
    "block": ObjectModel(
        shape="box",
        category="block",
        noun="block",
        size_m=(0.03, 0.05, 0.03),
        size_max_m=(0.045, 0.09, 0.05),
        colors=_COLORS,
    ),
    "cylinder": ObjectModel(
        shape="cylinder",
        category="cylinder",
        noun="cylinder",
        size_m=(0.035, 0.035, 0.04),
        size_max_m=(0.05, 0.05, 0.09),
        colors=_COLORS,
    ),
    "bin": ObjectModel(shape="bin", category="bin", noun="bin", size_m=(0.28, 0.22, 0.11), colors=_COLORS),
    "drawer": ObjectModel(
        shape="drawer", category="drawer", noun="drawer", size_m=(0.22, 0.26, 0.10), colors=_COLORS, travel=0.14
    ),
    "door": _door("left"),
    "door_right": _door("right"),
    "button": ObjectModel(
        shape="button", category="button", noun="button", size_m=(0.09, 0.09, 0.06), colors=_COLORS, travel=0.012
    ),
    "knob": ObjectModel(
        shape="knob", category="knob", noun="knob", size_m=(0.09, 0.09, 0.07), colors=_COLORS, travel=1.6
    ),
}
"""Object key → model."""


def mass_kg(model: ObjectModel, size: Vector) -> float:
    """Mass of an object of this size: as dense as its model says, but neither like a feather nor like a stone."""
    share = math.pi / 4 if model.shape == "cylinder" else 1.0
    return min(max(model.density * share * size[0] * size[1] * size[2], _LEAST_KG), _MOST_KG)


def own_size(model: ObjectModel) -> Vector:
    """Edges of the bounding box of an unscaled object (the least, where it has a range)."""
    if model.shape == "mesh":
        x, y, z = (float(value) for value in mesh_shape(model.mesh, model.unit_m, model.up).size_m)
        return x, y, z
    assert model.size_m is not None
    return model.size_m
