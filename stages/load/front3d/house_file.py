"""The part of 3D-FRONT's house files that a scene is made from, parsed strictly.

Everything is in metres with y up. Surfaces (`mesh`) already stand in the house's frame; furniture is placed by
the rooms' children. Keys that are not named here are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from nimbusd.stages.errors import AssetError


def _without_nulls(value: object) -> object:
    """Houses without texture coordinates carry `[null, …]`."""
    return [] if isinstance(value, list) and any(item is None for item in value) else value


Vector = tuple[float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class MeshEntry(_Entry):
    """A surface. xyz, uv: flat lists of vertex values. faces: flat list of corners, three per triangle."""

    uid: str
    type: str
    xyz: list[float]
    faces: list[int]
    uv: Annotated[list[float], BeforeValidator(_without_nulls)] = []
    material: str | None = None


class FurnitureEntry(_Entry):
    """A model that children refer to. valid: it is published; other models have no files."""

    uid: str
    jid: str
    title: str | None = None
    category: str | None = None
    valid: bool = False


class MaterialEntry(_Entry):
    """color: sRGB 0…255 (and alpha). texture: address whose last folder is the texture's id."""

    uid: str
    jid: str | None = None
    texture: str | None = None
    color: list[float] = []
    UVTransform: list[float] = []


class Child(_Entry):
    """An instance in a room. ref: uid of a surface or of furniture. rot: quaternion x, y, z, w."""

    ref: str
    instanceid: str = ""
    pos: Vector = (0.0, 0.0, 0.0)
    rot: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    scale: Vector = (1.0, 1.0, 1.0)


class RoomEntry(_Entry):
    type: str
    instanceid: str
    children: list[Child]


class SceneEntry(_Entry):
    room: list[RoomEntry]


class HouseFile(_Entry):
    uid: str = ""
    mesh: list[MeshEntry]
    furniture: list[FurnitureEntry]
    material: list[MaterialEntry] = []
    scene: SceneEntry


def read_house(path: Path) -> HouseFile:
    """Raises AssetError that names the JSON path of the first thing missing or malformed."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise AssetError(
            f"house file {path} cannot be read ({error.strerror or error}). Check the scene's `house`."
        ) from error
    try:
        return HouseFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = _json_path(first["loc"])
        raise AssetError(
            f"house file {path}: {place}: {first['msg'].lower()}. The file is torn or not in 3D-FRONT's format; "
            "copy it again from the dataset."
        ) from error


def _json_path(location: tuple[int | str, ...]) -> str:
    """`scene.room[2].children[0].ref` of ("scene", "room", 2, "children", 0, "ref"); `$` for the whole file."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.lstrip(".") or "$"
