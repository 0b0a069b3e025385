"""`BProc3DFrontLoader`: furnished houses of the 3D-FRONT dataset with the models of 3D-FUTURE."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from nimbusd.stages.base import BaseLoader, ComponentArgs, SceneConfig
from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.front3d.house_file import (
    Child,
    FurnitureEntry,
    HouseFile,
    MaterialEntry,
    MeshEntry,
    RoomEntry,
    read_house,
)
from nimbusd.stages.load.lamps import WARM_WHITE, panel
from nimbusd.stages.load.mend import mended
from nimbusd.stages.load.mend.recentre import check_part_resolution, near_origin, recentred
from nimbusd.stages.load.mesh.files import join_parts, part_to_object, read_mesh_file, referenced_files
from nimbusd.stages.load.mesh.part import Z_UP_FROM_Y_UP, MeshPart, linear_rgb, read_image
from nimbusd.stages.load.names import category_of, snake_case
from nimbusd.stages.types import F64, U8, Light, Material, Rgb, Room, Scene, SceneObject

_HANGING = ("ceiling_lamp", "curtain", "picture", "mirror")
_LAMP_GLOW = 3.0
_PANEL_EVERY_M = 4.0


class Front3DArgs(ComponentArgs):
    """Arguments of BProc3DFrontLoader.

    lamp_w_per_m2: light power per square metre of a room's floor. sky_color, sky_strength: outside the windows.
    skip_missing: leave out furniture without a model file (not all models are published) instead of failing.
    """

    lamp_w_per_m2: float = Field(default=5.0, ge=0)
    sky_color: Rgb = (0.9, 0.95, 1.0)
    sky_strength: float = Field(default=1.0, ge=0)
    skip_missing: bool = False


class Front3DConfig(SceneConfig):
    """One house.

    house: its JSON file. furniture: folder with a `<jid>/raw_model.obj` per model, and optionally
    `model_info.json` with their categories. textures: folder with `<id>/texture.png`; without it surfaces
    have plain colours.
    """

    house: Path
    furniture: Path
    textures: Path | None = None


class BProc3DFrontLoader(BaseLoader[Front3DArgs, Front3DConfig]):
    """Loads a house with its rooms' floor polygons; lamps hang where the house has them, else one per room."""

    args_model: ClassVar[type[ComponentArgs]] = Front3DArgs
    scene_model: ClassVar[type[SceneConfig]] = Front3DConfig
    version = "1.2.0"
    requires = ("mapbox_earcut", "scipy", "shapely")
    may_use = ("DracoPy", "meshopt")

    def asset_paths(self, config: Front3DConfig) -> list[Path]:
        """The house file, the models that its rooms use with their textures, and the surfaces' textures."""
        if not config.house.is_file():
            return [config.house]
        house = read_house(config.house)
        models = {_model_path(config, entry) for entry in _used_furniture(house)}
        if self.args.skip_missing:
            models = {path for path in models if path.is_file()}
        paths = [file for model in sorted(models) for file in (model, *referenced_files(model))]
        if config.textures is not None:
            used = {entry.material for entry in house.mesh}
            pictures = (_texture_path(config.textures, m) for m in house.material if m.uid in used)
            paths += [path for path in pictures if path is not None]
        return list(dict.fromkeys([config.house, *paths]))

    def load_asset(self, config: Front3DConfig) -> Scene:
        """The house. Raises AssetError naming models that are missing, or what is wrong in the house file."""
        house = read_house(config.house)
        models = self._read_models(config, house)
        categories = _model_categories(config.furniture)
        objects = self._surfaces(config, house)
        rooms: list[Room] = []
        lights: list[Light] = []
        meshes = {entry.uid: entry for entry in house.mesh}
        furniture = {entry.uid: entry for entry in house.furniture}
        counts: Counter[str] = Counter()
        unresolved = 0
        for entry in house.scene.room:
            room = _room(entry, meshes)
            placed = []
            for child in entry.children:
                if child.ref in meshes:
                    continue
                model = furniture.get(child.ref)
                if model is None or model.jid not in models:
                    unresolved += 1
                    continue
                category = _furniture_category(model, categories)
                counts[category] += 1
                name = f"{category}_{counts[category]}"
                made = _place(child, models[model.jid], name, category, len(objects) + 1, room, config.house)
                objects.append(made)
                placed.append(made)
                self.beat()
            if room is not None:
                rooms.append(room)
                lights += self._lights(room, entry, placed, meshes)
        if not objects:
            raise AssetError(f"house file {config.house} is empty: no surface and no furniture. Choose another house.")
        scene = Scene(
            config.name,
            tuple(objects),
            tuple(lights),
            tuple(rooms),
            self.args.sky_color,
            self.args.sky_strength,
            provenance={
                "loader": "BProc3DFrontLoader",
                "house": str(config.house),
                "sha256": hashlib.sha256(config.house.read_bytes()).hexdigest(),
                "left_out": unresolved,
            },
        )
        return mended(recentred(scene), self.beat)

    def _read_models(self, config: Front3DConfig, house: HouseFile) -> dict[str, MeshPart]:
        """Models by jid. Raises AssetError that lists every missing model at once."""
        used = {entry.jid: _model_path(config, entry) for entry in _used_furniture(house)}
        missing = sorted(jid for jid, path in used.items() if not path.is_file())
        if missing and not self.args.skip_missing:
            raise AssetError(
                f"scene {config.name!r}: house {config.house} needs {len(missing)} furniture models that are not in "
                f"{config.furniture}: {', '.join(missing)} (raw_model.obj in a folder of that name). "
                "Copy them there, or set `skip_missing: true`."
            )
        models = {}
        for jid in sorted(used.keys() - set(missing)):
            models[jid] = _read_model(used[jid])
            self.beat()
        return models

    def _surfaces(self, config: Front3DConfig, house: HouseFile) -> list[SceneObject]:
        materials = _materials(config, house)
        counts: Counter[str] = Counter()
        objects: list[SceneObject] = []
        for number, entry in enumerate(house.mesh):
            if not entry.faces:
                continue
            kind = entry.type.strip() or "surface"
            counts[kind] += 1
            material, T_uv = materials.get(entry.material or "", (Material("plain"), np.eye(2)))
            part = _surface_part(entry, f"{kind} {counts[kind]}", material, T_uv, f"{config.house}: mesh[{number}]")
            objects.append(
                part_to_object(
                    part,
                    np.eye(4),
                    name=part.name,
                    category=category_of(kind) or snake_case(kind),
                    instance_id=len(objects) + 1,
                    up_axis="y",
                )
            )
        return objects

    def _lights(
        self, room: Room, entry: RoomEntry, placed: list[SceneObject], meshes: dict[str, MeshEntry]
    ) -> list[Light]:
        """A lamp below each ceiling lamp of the room; panels under its ceiling where there is none."""
        import shapely

        polygon = shapely.Polygon(room.polygon)
        power = self.args.lamp_w_per_m2 * float(polygon.area)
        hung = [obj for obj in placed if obj.category == "ceiling_lamp"]
        lights = []
        for obj in hung:
            corners = obj.world_vertices()
            T = np.eye(4)
            T[:3, 3] = [*(corners.min(axis=0) + corners.max(axis=0))[:2] / 2, corners[:, 2].min() - 0.12]
            lights.append(Light(f"{room.name} {obj.name}", "point", T, power / len(hung), WARM_WHITE, (0.2, 0.2)))
        if hung:
            return lights
        ceiling = _height(entry, meshes, "ceiling")
        z = (room.z_m + 2.6 if ceiling is None else ceiling) - 0.05
        points = _spread(polygon.bounds)
        inside = [(x, y) for x, y in points if polygon.contains(shapely.Point(x, y))]
        if not inside:
            point = polygon.representative_point()
            inside = [(point.x, point.y)]
        share = power / len(inside)
        return [panel(f"{room.name} panel {k}", (x, y, z), share) for k, (x, y) in enumerate(inside, 1)]


def _used_furniture(house: HouseFile) -> list[FurnitureEntry]:
    refs = {child.ref for room in house.scene.room for child in room.children}
    return [entry for entry in house.furniture if entry.valid and entry.uid in refs]


def _model_path(config: Front3DConfig, entry: FurnitureEntry) -> Path:
    return config.furniture / entry.jid / "raw_model.obj"


def _read_model(path: Path) -> MeshPart:
    """A model as one part. Its materials don't glow: the dataset's emission colours are leftovers of an exporter."""
    model = join_parts(path.parent.name, read_mesh_file(path))
    check_part_resolution(model, 1.0, f"mesh file {path}")
    picture = path.parent / "texture.png"
    texture = None
    if model.uvs is not None and all(m.texture is None for m in model.materials) and picture.is_file():
        texture = read_image(picture, str(picture))[0]
    materials = [
        replace(m, emission=0.0) if texture is None else replace(m, emission=0.0, texture=texture, base_color=(1, 1, 1))
        for m in model.materials
    ]
    return replace(model, materials=tuple(materials))


def _model_categories(folder: Path) -> dict[str, str]:
    """Categories by jid from `model_info.json`; empty without that file."""
    from pydantic import BaseModel, TypeAdapter, ValidationError

    class ModelInfo(BaseModel):
        model_id: str
        category: str | None = None

    path = folder / "model_info.json"
    if not path.is_file():
        return {}
    try:
        entries = TypeAdapter(list[ModelInfo]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise AssetError(
            f"model list {path} is not a JSON list of models with `model_id` ({error.error_count()} errors). "
            "Copy it again from the dataset, or remove it."
        ) from error
    return {entry.model_id: entry.category for entry in entries if entry.category}


def _furniture_category(entry: FurnitureEntry, categories: dict[str, str]) -> str:
    name = categories.get(entry.jid) or entry.category or entry.title or "object"
    return category_of(name) or snake_case(name)


def _texture_path(folder: Path, entry: MaterialEntry) -> Path | None:
    """The file of a material's picture: under its id, else under the last folder of its address."""
    if not entry.texture:
        return None
    steps = entry.texture.rstrip("/").split("/")
    names = [name for name in (entry.jid, steps[-2] if len(steps) > 1 else None) if name]
    found = [folder / name / "texture.png" for name in names]
    return next((path for path in found if path.is_file()), found[0] if found else None)


def _materials(config: Front3DConfig, house: HouseFile) -> dict[str, tuple[Material, F64]]:
    """By uid, the material and the (2, 2) matrix for its texture coordinates, of the materials that surfaces use."""
    used = {entry.material for entry in house.mesh}
    pictures: dict[Path, U8] = {}
    made: dict[str, tuple[Material, F64]] = {}
    for entry in house.material:
        if entry.uid not in used:
            continue
        color = linear_rgb(np.array(entry.color[:3]) / 255) if len(entry.color) >= 3 else (0.8, 0.8, 0.8)
        path = _texture_path(config.textures, entry) if config.textures is not None else None
        texture = None
        if path is not None:
            if path not in pictures:
                pictures[path] = read_image(path, f"{path} (material {entry.uid} of {config.house})")[0]
            texture = pictures[path]
        T_uv = np.array(entry.UVTransform).reshape(3, 3)[:2, :2] if len(entry.UVTransform) == 9 else np.eye(2)
        base = (1.0, 1.0, 1.0) if texture is not None else color
        made[entry.uid] = (Material(entry.uid, base, texture, roughness=0.7), T_uv)
    return made


def _surface_part(entry: MeshEntry, name: str, material: Material, T_uv: F64, place: str) -> MeshPart:
    """The surface in the house's frame (y up). Raises AssetError where its lists don't fit together."""
    if len(entry.xyz) % 3 or len(entry.faces) % 3 or (entry.uv and len(entry.uv) * 3 != len(entry.xyz) * 2):
        raise AssetError(
            f"house file {place} is torn: {len(entry.xyz)} coordinates, {len(entry.uv)} texture coordinates, "
            f"{len(entry.faces)} corners. Copy it again from the dataset."
        )
    vertices, shift = near_origin(np.array(entry.xyz, np.float64).reshape(-1, 3))
    T_house_part = np.eye(4)
    T_house_part[:3, 3] = shift
    faces = np.array(entry.faces, np.int64).reshape(-1, 3)
    if faces.min() < 0 or faces.max() >= len(vertices) or not np.isfinite(vertices).all():
        raise AssetError(
            f"house file {place} is torn: a face names a vertex that is not there, or a coordinate is not finite. "
            "Copy it again from the dataset."
        )
    uvs = None
    if entry.uv:
        uvs = (np.array(entry.uv).reshape(-1, 2) @ T_uv.T).astype(np.float32)[faces]
    face_material = np.zeros(len(faces), np.int32)
    return MeshPart(name, vertices, faces.astype(np.int32), (material,), face_material, uvs, T_house_part)


def _place(
    child: Child, model: MeshPart, name: str, category: str, instance_id: int, room: Room | None, house: Path
) -> SceneObject:
    from scipy.spatial.transform import Rotation

    if not np.any(child.rot):
        raise AssetError(
            f"house file {house}: {child.instanceid or child.ref} has the rotation 0, 0, 0, 0. Correct it."
        )
    T_house_model = np.eye(4)
    T_house_model[:3, :3] = Rotation.from_quat(child.rot).as_matrix()
    T_house_model[:3, 3] = child.pos
    # Rigid in the world: the turn to z up happens on both sides, the scale stays with the vertices.
    T_world_file = Z_UP_FROM_Y_UP @ T_house_model @ Z_UP_FROM_Y_UP.T
    glowing = category == "ceiling_lamp"
    made = part_to_object(
        replace(
            model,
            T_file_part=np.diag([*child.scale, 1.0]) @ model.T_file_part,
            materials=tuple(replace(m, emission=_LAMP_GLOW) for m in model.materials) if glowing else model.materials,
        ),
        T_world_file,
        name=name,
        category=category,
        instance_id=instance_id,
        up_axis="y",
    )
    base = float(made.world_vertices()[:, 2].min())
    stands = room is not None and abs(base - room.z_m) < 0.15
    return replace(made, movable=stands and category not in _HANGING)


def _room(entry: RoomEntry, meshes: dict[str, MeshEntry]) -> Room | None:
    """The room with the outline of its floor; None for rooms without one (balconies' parapets, shafts)."""
    import shapely

    triangles, heights = [], []
    for child in entry.children:
        mesh = meshes.get(child.ref)
        if mesh is None or category_of(mesh.type) != "floor" or not mesh.faces:
            continue
        world = np.array(mesh.xyz, np.float64).reshape(-1, 3) @ Z_UP_FROM_Y_UP[:3, :3].T
        corners = world[np.array(mesh.faces).reshape(-1, 3)]
        triangles += [shapely.Polygon(corner[:, :2]) for corner in corners]
        heights.append(corners[..., 2].ravel())
    # Triangles that share an edge only up to rounding are joined by growing and shrinking by half a millimetre.
    floor = shapely.union_all([t.buffer(5e-4, join_style="mitre") for t in triangles if t.area > 1e-6])
    floor = floor.buffer(-5e-4, join_style="mitre").simplify(1e-3)
    if floor.is_empty:
        return None
    largest = max(getattr(floor, "geoms", [floor]), key=lambda polygon: polygon.area)
    ring = shapely.geometry.polygon.orient(largest).exterior.coords
    return Room(
        entry.instanceid, snake_case(entry.type), np.array(ring)[:-1, :2], float(np.median(np.concatenate(heights)))
    )


def _height(entry: RoomEntry, meshes: dict[str, MeshEntry], category: str) -> float | None:
    """Lowest height of the room's surfaces of a category; None without any."""
    found = [meshes[child.ref] for child in entry.children if child.ref in meshes]
    heights = [min(mesh.xyz[1::3]) for mesh in found if category_of(mesh.type) == category and mesh.xyz]
    return min(heights, default=None)


def _spread(bounds: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    """Centres of equal cells of at most 4 m."""
    x0, y0, x1, y1 = bounds
    columns, rows = (max(1, int(np.ceil(length / _PANEL_EVERY_M))) for length in (x1 - x0, y1 - y0))
    return [
        (x0 + (i + 0.5) * (x1 - x0) / columns, y0 + (j + 0.5) * (y1 - y0) / rows)
        for j in range(rows)
        for i in range(columns)
    ]
