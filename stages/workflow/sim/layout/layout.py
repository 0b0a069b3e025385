"""`Layout`: one randomized world, complete: whoever has it (and the assets) builds the same simulation and images.

Only JSON values and tuples, so that it travels in a scene's provenance and lies in every episode's metadata.
`Layout.to_json` and `Layout.from_json` are inverse to each other, floats included.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union

import numpy as np
from pydantic import BaseModel, Field

from nimbusd.stages.arguments import validate
from nimbusd.stages.types import F64, Camera, Rgb
from nimbusd.stages.workflow.sim.models.objects import ObjectModel
from nimbusd.stages.workflow.sim.models.robots import RobotModel
from nimbusd.stages.workflow.sim.rotation import Quaternion, Vector, matrix_of, quaternion_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pose:
    """A rigid pose. position: metres. quaternion: w, x, y, z, unit length."""

    position: Vector = (0.0, 0.0, 0.0)
    quaternion: Quaternion = (1.0, 0.0, 0.0, 0.0)

    def matrix(self) -> F64:
        """(4, 4) float64, `T_parent_child`."""
        return matrix_of(self.position, self.quaternion)

    @classmethod
    def from_matrix(cls, T_parent_child: F64) -> Pose:
        x, y, z = (float(value) for value in T_parent_child[:3, 3])
        return cls((x, y, z), quaternion_of(T_parent_child[:3, :3]))


@dataclass(frozen=True, slots=True)
class Surface:
    """The look of a thing. color: sRGB in 0…1. texture: name of a procedural texture, empty for a plain colour.

    texture_seed: picks the texture's variant. texture_scale: repeats per metre. gloss: 0 is matt, 1 a mirror-like
    highlight. With `own`, the object's own look (the texture of its mesh) is kept and `color` tints it.
    """

    color: Rgb = (0.8, 0.8, 0.8)
    texture: str = ""
    texture_seed: int = 0
    texture_scale: float = 2.0
    gloss: float = 0.2
    own: bool = False


@dataclass(frozen=True, slots=True)
class ObjectLayout:
    """One object.

    name: unique in the layout.
    model: key of the object library (`milk`, `cube`, `bin`, `drawer` …).
    definition: the object model itself, so that a layout needs no library; its noun with the colour that was drawn.
    category: word of the segmentation table.
    instance_id: 1…65535, unique.
    size_m: edges of its bounding box in its own frame (of meshes: after scaling by `scale`).
    fixed: True where it stands still (bins, drawers); its joint, if it has one, still moves.
    joint: value of its joint at the start, m or rad.
    group: the slot of the task that it fills, such as `clutter`.
    """

    name: str
    model: str
    definition: ObjectModel
    category: str
    instance_id: int
    pose: Pose
    size_m: Vector
    scale: float = 1.0
    mass_kg: float = 0.1
    friction: float = 1.0
    surface: Surface = field(default_factory=Surface)
    fixed: bool = False
    joint: float = 0.0
    group: str = ""


@dataclass(frozen=True, slots=True)
class RegionLayout:
    """A painted rectangle on the table that goals speak of. size_m: x, y edges. visible: drawn."""

    name: str
    instance_id: int
    pose: Pose
    size_m: tuple[float, float]
    color: Rgb = (0.2, 0.6, 0.2)
    visible: bool = True


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The table: a box whose top stands at `height_m`. centre: x, y of the top."""

    centre: tuple[float, float]
    size_m: tuple[float, float]
    height_m: float
    surface: Surface = field(default_factory=Surface)
    friction: float = 1.0


@dataclass(frozen=True, slots=True)
class CameraLayout:
    """A camera. mount: empty for the world, else an arm's name: the camera then rides on that arm's gripper.

    pose: `T_mount_camera` with OpenGL camera axes (x right, y up, looking along -z).
    """

    camera: Camera
    pose: Pose
    mount: str = ""

    @property
    def name(self) -> str:
        return self.camera.name


@dataclass(frozen=True, slots=True)
class LightLayout:
    """A lamp. `sun` shines along `direction` from everywhere, `spot` from `position`. diffuse, ambient: RGB 0…1."""

    name: str
    kind: Literal["sun", "spot"]
    position: Vector
    direction: Vector
    diffuse: Rgb
    ambient: Rgb = (0.0, 0.0, 0.0)
    shadow: bool = True


@dataclass(frozen=True, slots=True)
class RobotLayout:
    """The robot. model: key of the robot library or of the task's own `robots`. base: `T_world_robot`.

    definition: the robot model itself, so that a layout needs no library.
    start: arm name → joint positions in radians. opening: arm name → finger opening at the start, metres.
    """

    model: str
    definition: RobotModel
    base: Pose
    start: Mapping[str, tuple[float, ...]]
    opening: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Physics:
    """Time and gravity. substeps: physics steps per control step; fps: control steps per second.

    impratio: how much stiffer friction is than normal contact; with the elliptic cone it is what makes grasps hold; of
    MuJoCo alone. simulator: who computes it, see `sim.simulator`.
    """

    fps: Annotated[float, Field(ge=1, le=240)] = 30.0
    substeps: Annotated[int, Field(ge=1, le=1000)] = 16
    gravity: Annotated[float, Field(ge=-100, le=0)] = -9.81
    impratio: Annotated[float, Field(ge=1, le=1000)] = 10.0
    simulator: Literal["mujoco", "sapien"] = "mujoco"

    @property
    def timestep_s(self) -> float:
        return 1.0 / (self.fps * self.substeps)


@dataclass(frozen=True, slots=True)
class RelationLayout:
    """A goal or fact: `subject` `kind` `reference`, such as milk left_of can, or cube in bin_a."""

    subject: str
    kind: str
    reference: str

    def words(self) -> str:
        return f"{self.subject} {self.kind} {self.reference}"


@dataclass(frozen=True, slots=True)
class SkillCall:
    """One skill to perform, with its arguments bound to names of this layout (JSON values).

    block, item: of a skill that is repeated for every object of a slot, which repetition this is (block from 1). The
    items of a block may be done in any order; block 0 stands in its place.
    """

    skill: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    block: int = 0
    item: int = 0

    def words(self) -> set[str]:
        """The arguments that are text: names of things, relations, files."""
        return {value for value in self.arguments.values() if isinstance(value, str)}


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of a layout beside places and looks.

    choices: word of each of the task's choices. nouns: name of an object or region → how instructions call it.
    draw: number of this layout among those that were drawn; the ones before it were thrown away.
    """

    choices: Mapping[str, str] = field(default_factory=dict)
    nouns: Mapping[str, str] = field(default_factory=dict)
    draw: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole world and what is to be done in it.

    task: name of the task template.
    instruction: the sentence for this episode.
    goals: all must hold at the end.
    skills: what to do, in order.
    background: surfaces of `floor` and `wall`.
    paraphrases: other sentences of the same meaning.
    draws: the draws of randomization, for the record.
    version: of this structure.
    """

    task: str
    instruction: str
    robot: RobotLayout
    table: TableLayout
    objects: tuple[ObjectLayout, ...]
    cameras: tuple[CameraLayout, ...]
    lights: tuple[LightLayout, ...]
    goals: tuple[RelationLayout, ...]
    skills: tuple[SkillCall, ...]
    regions: tuple[RegionLayout, ...] = ()
    background: Mapping[str, Surface] = field(default_factory=dict)
    sky: Rgb = (0.6, 0.7, 0.8)
    physics: Physics = field(default_factory=Physics)
    paraphrases: tuple[str, ...] = ()
    draws: Draws = field(default_factory=Draws)
    version: int = 1

    def object(self, name: str) -> ObjectLayout:
        """The object called `name`. Raises KeyError that lists the names there are."""
        for entry in self.objects:
            if entry.name == name:
                return entry
        raise KeyError(f"layout of {self.task!r} has no object {name!r}; it has {[o.name for o in self.objects]}")

    def camera(self, name: str) -> CameraLayout:
        """The camera called `name`. Raises KeyError that lists the names there are."""
        for entry in self.cameras:
            if entry.name == name:
                return entry
        raise KeyError(f"layout of {self.task!r} has no camera {name!r}; it has {[c.name for c in self.cameras]}")

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """The layout that `to_json` wrote.

        Raises ValueError for another version, TypeError for a foreign structure, ArgumentsError for a robot or object
        whose definition does not fit its model.
        """
        if value.get("version") != 1:
            raise ValueError(f"this layout has version {value.get('version')!r}; this program reads version 1")
        return _built(cls, value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _built(kind: type[T], value: Mapping[str, Any]) -> T:
    """An instance of the dataclass `kind` from plain values, following its annotations."""
    hints = typing.get_type_hints(kind)
    fields = {entry.name for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if strangers := sorted(set(value) - fields):
        raise TypeError(f"{kind.__name__} has no field {strangers[0]!r}")
    return kind(**{name: _typed(hints[name], item) for name, item in value.items()})


def _typed(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(arg for arg in args if arg is not type(None)), value)
    if origin is tuple:
        items = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_typed(item, entry) for item, entry in zip(items, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _typed(args[1], entry) for key, entry in value.items()}
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return validate(hint, value, f"the layout's {hint.__name__}")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _built(hint, value)
    return float(value) if hint is float else value
