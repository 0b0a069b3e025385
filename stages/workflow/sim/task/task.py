"""`ManipTask`: a task template as configuration. What stands where, what is to be done, in which words, how it varies.

Placeholders: `$slot` in skills and goals is the object that fills a slot, `$choice` what was drawn of a choice. An
entry with `for_each: slot` is repeated for every object of the slot, which is then `$item`; with `sort`, `$bin` is
where that item belongs. Instruction templates name the same in braces, in words: `put the {target} {relation} the
{anchor}`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator

from nimbusd.stages.arguments import did_you_mean
from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.load.textures import KINDS as TEXTURES
from nimbusd.stages.plain import Key
from nimbusd.stages.workflow.sim.layout.layout import Physics
from nimbusd.stages.workflow.sim.models.objects import LIBRARY, ObjectModel
from nimbusd.stages.workflow.sim.models.robots import ROBOTS, RobotModel
from nimbusd.stages.workflow.sim.numbers import (
    AngleRange,
    BrightnessRange,
    Color,
    Coordinate,
    CoordinateRange,
    Distance,
    Edge,
    FactorRange,
    Name,
    Size,
    Words,
    rising,
)
from nimbusd.stages.workflow.sim.skills import SKILLS
from nimbusd.stages.workflow.sim.task.camera_spec import DEFAULT_CAMERAS, CameraSpec

M = TypeVar("M", bound=ComponentArgs)
_MODULES = {"sapien": ("sapien",), "curobo": ("curobo", "torch")}
"""Simulator or planner → the Python modules that it runs with."""

_Count = Annotated[int, Field(ge=0, le=50)]
_CountRange = Annotated[tuple[_Count, _Count], AfterValidator(rising)]
_TableEdge = Annotated[float, Field(ge=0.2, le=5)]


class TableSpec(ComponentArgs):
    """The table. centre: x, y of its top in the world; the robot's base stands on it at the origin of x, y."""

    centre: tuple[Coordinate, Coordinate] = (0.42, 0.0)
    size_m: tuple[_TableEdge, _TableEdge] = (1.5, 1.8)
    height_m: float = Field(default=0.75, gt=0.1, lt=1.5)


class SlotSpec(ComponentArgs):
    """Something to put on the table.

    models: keys of the object library, one is drawn per object.
    count: least and most.
    x_m, y_m: range of its centre, from the robot's base.
    yaw_rad: range of its turn about the vertical.
    distinct: no model twice in the slot (while there are enough).
    color: one of the colours of code-made models; empty draws one.
    gap_m: free space around it.
    fixed: None follows the model (bins and drawers stand still).
    joint: of a fixture, its opening at the start as a share of its travel.
    size_m: edges of its bounding box, instead of the model's.
    """

    name: Name
    models: tuple[str, ...] = Field(min_length=1)
    count: _CountRange = (1, 1)
    x_m: CoordinateRange = (0.36, 0.66)
    y_m: CoordinateRange = (-0.32, 0.32)
    yaw_rad: AngleRange = (-3.1416, 3.1416)
    distinct: bool = True
    color: str = ""
    gap_m: Distance = 0.02
    fixed: bool | None = None
    joint: float = Field(default=0.0, ge=0, le=1)
    size_m: Size | None = None

    def stands_still(self, model: ObjectModel) -> bool:
        """True where an object of this model does not move in this slot."""
        return model.is_fixture if self.fixed is None else self.fixed

    def object_names(self) -> list[str]:
        """Every name that an object of the slot may have."""
        if self.count == (1, 1):
            return [self.name]
        return [f"{self.name}_{number}" for number in range(1, self.count[1] + 1)]

    def names_always_there(self) -> list[str]:
        """Names of those objects of the slot that every layout has."""
        return self.object_names() if self.count == (1, 1) else self.object_names()[: self.count[0]]


class RegionSpec(ComponentArgs):
    """A painted rectangle on the table. x_m, y_m: where its centre may lie, from the robot's base."""

    name: Name
    size_m: tuple[Edge, Edge] = (0.16, 0.16)
    x_m: CoordinateRange = (0.4, 0.6)
    y_m: CoordinateRange = (-0.3, 0.3)
    color: Color = (0.25, 0.55, 0.35)
    visible: bool = True


class GoalSpec(ComponentArgs):
    """A relation that must hold at the end."""

    subject: str
    relation: str
    reference: str = ""
    for_each: str = ""


class SkillSpec(ComponentArgs):
    """A skill to perform. with_: its arguments (`with` in a file). instruction: in words, else the skill's own."""

    skill: str
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    instruction: str = ""
    for_each: str = ""

    def word(self, argument: str) -> str:
        """An argument as text; empty where the call states none."""
        return str(self.with_.get(argument, ""))

    def words(self) -> list[str]:
        """All arguments that are text."""
        return [value for value in self.with_.values() if isinstance(value, str)]

    @field_validator("skill")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SKILLS:
            raise ValueError(f"no skill is called '{value}'; {did_you_mean(value, SKILLS)}")
        return value


class SortSpec(ComponentArgs):
    """The places of a slot's objects: container slot → models that belong there."""

    slot: str
    into: dict[str, tuple[str, ...]] = Field(min_length=1)


class RandomizeSpec(ComponentArgs):
    """Limits within which layouts vary. Ranges are (least, most); factors multiply; 0 or () leaves as it is.

    scale, mass, friction: factors per object.
    tables, floors, walls: textures.
    camera_m, camera_rad, focal: of fixed cameras' place, direction and focal length (relative).
    robot_rad: of the start posture, per joint.
    key, fill, ambient: brightness of the lamps.
    sun_rad: of the key light's direction.
    warmth: how far lamps turn yellow or blue.
    sizes: True varies the sizes of code-made models.
    """

    scale: FactorRange = (0.95, 1.05)
    mass: FactorRange = (0.7, 1.3)
    friction: FactorRange = (0.8, 1.2)
    tables: tuple[str, ...] = ("wood", "planks", "stone", "fabric", "plaster")
    floors: tuple[str, ...] = ("planks", "tiles", "carpet", "stone")
    walls: tuple[str, ...] = ("plaster", "brick", "stripes")
    camera_m: Distance = 0.03
    camera_rad: float = Field(default=0.03, ge=0, le=1)
    focal: float = Field(default=0.03, ge=0, lt=0.5)
    robot_rad: float = Field(default=0.06, ge=0, le=0.5)
    key: BrightnessRange = (0.3, 0.5)
    fill: BrightnessRange = (0.1, 0.25)
    ambient: BrightnessRange = (0.3, 0.45)
    sun_rad: float = Field(default=0.5, ge=0, le=1.2)
    warmth: float = Field(default=0.12, ge=0, le=0.5)
    sizes: bool = True

    @field_validator("tables", "floors", "walls")
    @classmethod
    def _textures(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in TEXTURES:
                raise ValueError(f"there is no texture '{kind}'; {did_you_mean(kind, TEXTURES)}")
        return value


class ManipTask(ComponentArgs):
    """A task template; `task.check` looks at what its names refer to.

    robot: key of `robots` or of the library.
    planner: `connect` runs anywhere, `curobo` on a GPU.
    robots, objects: models of the task's own.
    choices: word → words that it is drawn from.
    sort: places of a slot's objects.
    goals: relations that must hold at the end.
    skills: what to do, in order.
    instructions: templates; one is the episode's sentence, the others are its paraphrases.
    seen_share: least share of one still camera's picture that each thing of goals and skills fills at the start.
    """

    name: Words
    robot: str = "franka"
    planner: Literal["connect", "curobo"] = "connect"
    robots: dict[str, RobotModel] = Field(default_factory=dict)
    objects: dict[str, ObjectModel] = Field(default_factory=dict)
    table: TableSpec = TableSpec()
    slots: tuple[SlotSpec, ...] = ()
    regions: tuple[RegionSpec, ...] = ()
    choices: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    sort: SortSpec | None = None
    goals: tuple[GoalSpec, ...] = ()
    skills: tuple[SkillSpec, ...] = Field(min_length=1)
    instructions: tuple[Words, ...] = Field(min_length=1)
    cameras: tuple[CameraSpec, ...] = Field(default=DEFAULT_CAMERAS, min_length=1)
    seen_share: float = Field(default=0.001, ge=0, lt=0.5)
    randomize: RandomizeSpec = RandomizeSpec()
    physics: Physics = Physics()

    def all_robots(self) -> dict[str, RobotModel]:
        """The library's robots and the task's own."""
        return {**ROBOTS, **self.robots}

    def all_objects(self) -> dict[str, ObjectModel]:
        """The library's objects and the task's own."""
        return {**LIBRARY, **self.objects}

    def robot_model(self) -> RobotModel:
        """The model of the task's robot."""
        return self.all_robots()[self.robot]

    def object_model(self, key: str) -> ObjectModel:
        """The model called `key`."""
        return self.all_objects()[key]

    def slots_of(self, word: str, for_each: str = "") -> list[SlotSpec]:
        """Slots that a placeholder, or the name of an object, may stand for an object of.

        for_each: the slot for whose objects the entry is repeated, which `$item` and `$bin` then depend on.
        """
        name = word.removeprefix("$")
        if name == "bin" and self.sort is not None and self.sort.slot == for_each:
            names = set(self.sort.into)
        else:
            names = {for_each if name == "item" and for_each else name}
        return [slot for slot in self.slots if slot.name in names or word in slot.object_names()]

    def modules(self) -> tuple[str, ...]:
        """Python modules that the task's simulator and planner run with, beside MuJoCo, which every task needs."""
        return tuple(name for word in (self.physics.simulator, self.planner) for name in _MODULES.get(word, ()))

    def file_references(self) -> list[str]:
        """Files of the robot and of all objects that may be drawn, as `file_of` takes them; none twice."""
        robot = self.robot_model()
        files = [part.mjcf for part in robot.parts] + [arm.gripper.mjcf for arm in robot.arms.values()]
        models = [self.object_model(key) for slot in self.slots for key in slot.models]
        files += [file for model in models for file in (model.mesh, model.texture, model.grasps) if file]
        return list(dict.fromkeys(files))

    def files(self) -> list[tuple[tuple[Key, ...], str]]:
        """Every file that the task's own models and skills name, and where they name it."""
        found: list[tuple[tuple[Key, ...], str]] = []

        def keep(place: tuple[Key, ...], reference: str) -> str:
            found.append((place, reference))
            return reference

        self._with_files(keep)
        return found

    def located(self, folder: Path) -> ManipTask:
        """The task with relative paths of files made absolute: they start at `folder`."""

        def locate(_: tuple[Key, ...], reference: str) -> str:
            return reference if ":" in reference else os.path.normpath(folder / reference)

        return self._with_files(locate)

    def _with_files(self, change: Callable[[tuple[Key, ...], str], str]) -> ManipTask:
        """The task with every file that it names changed."""

        def own(model: M, place: tuple[Key, ...], *names: str) -> M:
            given = {name: getattr(model, name) for name in names}
            return model.model_copy(
                update={name: change((*place, name), reference) for name, reference in given.items() if reference}
            )

        robots, objects, skills = {}, {}, []
        for key, robot in self.robots.items():
            place: tuple[Key, ...] = ("robots", key)
            parts = tuple(own(part, (*place, "parts", index), "mjcf") for index, part in enumerate(robot.parts))
            arms = {
                name: arm.model_copy(
                    update={"gripper": own(arm.gripper, (*place, "arms", name, "gripper"), "mjcf")}
                )
                for name, arm in robot.arms.items()
            }  # fmt: skip
            robots[key] = robot.model_copy(update={"parts": parts, "arms": arms})
        for key, model in self.objects.items():
            objects[key] = own(model, ("objects", key), "mesh", "texture", "grasps")
        for index, call in enumerate(self.skills):
            arguments = dict(call.with_)
            for name in SKILLS[call.skill].files:
                if isinstance(arguments.get(name), str) and arguments[name]:
                    arguments[name] = change(("skills", index, "with", name), arguments[name])
            skills.append(call.model_copy(update={"with_": arguments}))
        return self.model_copy(update={"robots": robots, "objects": objects, "skills": tuple(skills)})
