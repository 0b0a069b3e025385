"""Object models as data: things to grasp, and fixtures (bins, drawers, doors, buttons, knobs) made by code.

An object's frame has its origin at the centre of its bounding box, z up as it stands. `LIBRARY` has some; a task's
configuration may define its own in the same words.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.workflow.sim.layout import Vector
from nimbusd.stages.workflow.sim.mesh_shape import Up, mesh_shape

Shape: TypeAlias = Literal["mesh", "box", "cylinder", "bin", "drawer", "door", "button", "knob"]
FIXTURES = ("bin", "drawer", "door", "button", "knob")
"""Shapes that stand still unless a task says otherwise."""

_LEAST_KG, _MOST_KG = 0.02, 0.4


class ObjectModel(ComponentArgs):
    """One kind of object.

    shape: `mesh` reads `mesh` (`package:path`, or a file), in metres after `unit_m`; the others are made by code with
    `size_m` (x, y, z edges of the bounding box; least and most where a range). collision: what a mesh collides as;
    `parts` are convex pieces, for hollow things.
    up: the file's upward axis; empty follows its kind (y for .glb and .gltf, else z). texture: picture of a mesh that
    has texture coordinates, instead of the file's own. noun: as instructions call it. density: kg/m³.
    grasps: a JSON or npz file with grasps of its own, see `grasps`. travel: range of a fixture's joint, m or rad.
    hinge: the side of a door's hinge, as one sees it who stands before it.
    """

    shape: Shape
    category: str
    noun: str
    mesh: str = ""
    unit_m: float = Field(default=1.0, gt=0)
    up: Up = ""
    texture: str = ""
    collision: Literal["hull", "parts", "box", "cylinder"] = "hull"
    size_m: Vector | None = None
    size_max_m: Vector | None = None
    density: float = Field(default=300.0, gt=0)
    friction: float = Field(default=1.0, gt=0)
    colors: tuple[tuple[str, tuple[float, float, float]], ...] = ()
    grasps: str = ""
    travel: float = Field(default=0.0, ge=0)
    hinge: Literal["left", "right"] = "left"

    @model_validator(mode="after")
    def _sized(self) -> ObjectModel:
        if self.shape == "mesh" and not self.mesh:
            raise ValueError("an object of shape 'mesh' needs 'mesh', the file")
        if self.shape != "mesh" and self.size_m is None:
            raise ValueError(f"an object of shape '{self.shape}' needs 'size_m'")
        return self

    @property
    def is_fixture(self) -> bool:
        return self.shape in FIXTURES

    def dump(self) -> dict[str, Any]:
        """JSON values, as a layout carries them."""
        return self.model_dump(mode="json")


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
        category=name,
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
    """What an object of this size weighs: as dense as its model says, but neither like a feather nor like a stone."""
    share = math.pi / 4 if model.shape == "cylinder" else 1.0
    return min(max(model.density * share * size[0] * size[1] * size[2], _LEAST_KG), _MOST_KG)


def own_size(model: ObjectModel) -> Vector:
    """Edges of the bounding box of an unscaled object (the least, where it has a range)."""
    if model.shape == "mesh":
        x, y, z = (float(value) for value in mesh_shape(model.mesh, model.unit_m, model.up).size_m)
        return x, y, z
    assert model.size_m is not None
    return model.size_m
