"""Faults of values that components return, measured against what `nimbusd.stages.types` promises.

Each function returns sentences, none where all is right. They look at everything once; a hundred equal mistakes are
told by the first of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages.errors import NimbusError
from nimbusd.stages.packing import pack_sequence, unpack_sequence
from nimbusd.stages.store.beneath import check_path
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.piece import PIECES, draft_of, piece_faults, read_piece
from nimbusd.stages.types import (
    Camera,
    CameraFrames,
    Episode,
    Feature,
    Observation,
    Piece,
    Scene,
    SceneObject,
    Sequence,
    Splats,
)

MOST_TOLD = 4
_ORTHONORMAL = 1e-4


def scene_faults(scene: Any, name: str) -> list[str]:
    """Faults of a Scene that must be called `name`."""
    if not isinstance(scene, Scene):
        return [_no("Scene", scene)]
    return _first(_of_scene(scene, name))


def sequence_faults(seq: Any) -> list[str]:
    """Faults of a Sequence."""
    return _first(_of_sequence(seq)) if isinstance(seq, Sequence) else [_no("Sequence", seq)]


def observation_faults(obs: Any, seq: Sequence) -> list[str]:
    """Faults of an Observation that must fit `seq`."""
    return _first(_of_observation(obs, seq)) if isinstance(obs, Observation) else [_no("Observation", obs)]


def stored_faults(piece: Any, episode: Episode) -> list[str]:
    """Faults of a Piece that must hold `episode`, and of what lies in the output beside it."""
    return _first(_of_piece(piece, episode)) if isinstance(piece, Piece) else [_no("Piece", piece)]


def output_faults(output: Path) -> list[str]:
    """All in an output folder that is no whole piece: torn ones, drafts that were left, other files."""
    found = [f"{path.name} lies in the output folder, where only {PIECES} may" for path in _beside_pieces(output)]
    for folder in sorted((output / PIECES).iterdir()) if (output / PIECES).is_dir() else ():
        found += torn(output, folder.name)
    return _first(iter(found))


def torn(output: Path, folder: str) -> list[str]:
    """The faults that keep `<output>/.pieces/<folder>` from being a whole piece. A draft is one that was left."""
    if folder.endswith(draft_of(Path("x")).name[1:]):
        return [f"the draft {PIECES}/{folder} was left"]
    try:
        return piece_faults(output, read_piece(output, folder), deep=True)
    except NimbusError as error:
        return [f"{PIECES}/{folder} has no `.tmp` in its name, but is not whole: {error}"]


def _beside_pieces(output: Path) -> list[Path]:
    return sorted(path for path in output.iterdir() if path.name != PIECES) if output.is_dir() else []


def _first(faults: Iterator[str]) -> list[str]:
    return list(itertools.islice(dict.fromkeys(faults), MOST_TOLD))


def _no(kind: str, value: object) -> str:
    return f"it returned {'None' if value is None else 'a ' + type(value).__name__}, but must return a {kind}"


def _array(what: str, value: Any, dtype: type, shape: tuple[int | None, ...], finite: bool = True) -> Iterator[str]:
    """shape: None where any size will do."""
    if not isinstance(value, np.ndarray):
        yield f"{what} is a {type(value).__name__}, but must be a numpy array"
        return
    if value.dtype != dtype:
        yield f"{what} has dtype {value.dtype}, but must have {np.dtype(dtype)}"
    fits = len(shape) == value.ndim and all(want in (None, have) for want, have in zip(shape, value.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        yield f"{what} has shape {value.shape}, but must have ({wanted})"
    elif finite and value.dtype.kind == "f" and not np.isfinite(value).all():
        yield f"{what} has values that are not finite"


def _pose(what: str, T: Any, frames: int | None = None) -> Iterator[str]:
    """A rigid transform, or one per frame."""
    shape = (4, 4) if frames is None else (frames, 4, 4)
    if faults := list(_array(what, T, np.float64, shape)):
        yield from faults
        return
    R = T[..., :3, :3]
    apart = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max(initial=0.0)
    if apart > _ORTHONORMAL or (np.linalg.det(R) < 0).any():
        yield f"{what} is no rigid transform: its rotation is {apart:.2g} from orthonormal, or mirrors"
    if (T[..., 3, :] != (0, 0, 0, 1)).any():
        yield f"{what} has another last row than 0 0 0 1"


def _json(what: str, value: Any) -> Iterator[str]:
    try:
        to_json(value)
    except NimbusError as error:
        yield f"{what}: {error}"


def _of_scene(scene: Scene, name: str) -> Iterator[str]:
    if scene.name != name:
        yield f"the scene is called {scene.name!r}, but must be called {name!r} as its entry in `scenes`"
    names = [obj.name for obj in scene.objects]
    if len({*names}) != len(names):
        twice = next(word for word in names if names.count(word) > 1)
        yield f"two objects are called {twice!r}"
    owner: dict[int, str] = {}
    for obj in scene.objects:
        yield from _of_object(obj)
        if owner.setdefault(obj.instance_id, obj.instance_name) != obj.instance_name:
            yield f"{obj.name!r} and {owner[obj.instance_id]!r} share the instance id {obj.instance_id}"
    for light in scene.lights:
        yield from _array(f"T_world_light of {light.name!r}", light.T_world_light, np.float64, (4, 4))
        if light.kind not in ("point", "area", "sun"):
            yield f"light {light.name!r} is a {light.kind!r}, but must be point, area or sun"
        if not light.power_w >= 0:
            yield f"light {light.name!r} has a power of {light.power_w} W"
    for room in scene.rooms:
        yield from _array(f"polygon of room {room.name!r}", room.polygon, np.float64, (None, 2))
        if len(room.polygon) < 3:
            yield f"the polygon of room {room.name!r} has {len(room.polygon)} corners"
    if scene.splats is not None:
        yield from _of_splats(scene.splats)
    yield from _json("the scene's provenance", scene.provenance)


def _of_object(obj: SceneObject) -> Iterator[str]:
    whose = f"of object {obj.name!r}"
    if not 1 <= obj.instance_id <= 65535:
        yield f"instance_id {whose} is {obj.instance_id}, but must be from 1 to 65535"
    vertices = list(_array(f"vertices {whose}", obj.vertices, np.float32, (None, 3)))
    faces = list(_array(f"faces {whose}", obj.faces, np.int32, (None, 3)))
    yield from (*vertices, *faces)
    if (
        not vertices
        and not faces
        and len(obj.faces)
        and not 0 <= obj.faces.min() <= obj.faces.max() < len(obj.vertices)
    ):
        yield f"faces {whose} name vertices that it does not have"
    yield from _array(f"face_material {whose}", obj.face_material, np.int32, (len(obj.faces),))
    if len(obj.face_material) and not 0 <= obj.face_material.min() <= obj.face_material.max() < len(obj.materials):
        yield f"face_material {whose} names materials that it does not have"
    if obj.uvs is not None:
        yield from _array(f"uvs {whose}", obj.uvs, np.float32, (len(obj.faces), 3, 2))
    for material in obj.materials:
        if material.texture is not None:
            yield from _array(f"texture of {material.name!r} {whose}", material.texture, np.uint8, (None, None, 3))
    yield from _array(f"T_world_object {whose}", obj.T_world_object, np.float64, (4, 4))


def _of_splats(splats: Splats) -> Iterator[str]:
    count = len(splats.means)
    yield from _array("means of the splats", splats.means, np.float32, (None, 3))
    yield from _array("scales of the splats", splats.scales, np.float32, (count, 3))
    yield from _array("quats of the splats", splats.quats, np.float32, (count, 4))
    yield from _array("opacities of the splats", splats.opacities, np.float32, (count,))
    yield from _array("sh of the splats", splats.sh, np.float32, (count, None, 3))
    yield from _array("T_world_splats", splats.T_world_splats, np.float64, (4, 4))


def _of_sequence(seq: Sequence) -> Iterator[str]:
    length = len(seq)
    if length == 0:
        yield "the sequence has no frames"
    if not (seq.fps > 0 and np.isfinite(seq.fps)):
        yield f"fps is {seq.fps}"
    if not isinstance(seq.task, str) or not seq.task:
        yield "task, the instruction in words, is empty"
    names = [camera.name for camera in seq.cameras]
    for key, given in (("T_world_camera", seq.T_world_camera), ("T_base_camera", seq.T_base_camera)):
        if {*given} != {*names} or len({*names}) != len(names):
            yield f"{key} is of cameras {sorted(given)}, but `cameras` has {sorted(names)}"
    for camera in seq.cameras:
        yield from _of_camera(camera)
        if camera.name in seq.T_world_camera:
            yield from _pose(f"T_world_camera of {camera.name!r}", seq.T_world_camera[camera.name], length)
        if camera.name in seq.T_base_camera:
            yield from _pose(f"T_base_camera of {camera.name!r}", seq.T_base_camera[camera.name])
    for kind, columns in (("state", seq.states), ("action", seq.actions)):
        for key, feature in columns.items():
            yield from _of_feature(f"{kind} {key!r}", feature, length)
    for name, poses in seq.T_world_object.items():
        yield from _pose(f"T_world_object of {name!r}", poses, length)
    yield from _json("notes of the sequence", seq.notes)
    try:
        unpack_sequence(pack_sequence(seq))
    except NimbusError as error:
        yield f"the sequence cannot be handed to another process: {error}"


def _of_camera(camera: Camera) -> Iterator[str]:
    if camera.width < 1 or camera.height < 1 or not (camera.fx > 0 and camera.fy > 0):
        size = f"{camera.width} x {camera.height} pixels and focal lengths {camera.fx}, {camera.fy}"
        yield f"camera {camera.name!r} has {size}"


def _of_feature(what: str, feature: Any, length: int) -> Iterator[str]:
    if not isinstance(feature, Feature):
        yield f"{what} is a {type(feature).__name__}, but must be a Feature"
        return
    values = feature.values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or values.ndim < 1:
        yield f"{what} must hold an array of numbers with a row per frame"
    elif len(values) != length:
        yield f"{what} has {len(values)} rows, but the sequence has {length} frames"
    elif values.dtype.kind == "f" and not np.isfinite(values).all():
        yield f"{what} has values that are not finite"
    elif feature.names is not None and len(feature.names) != int(np.prod(values.shape[1:])):
        yield f"{what} has {len(feature.names)} names for rows of {int(np.prod(values.shape[1:]))} numbers"


def _of_observation(obs: Observation, seq: Sequence) -> Iterator[str]:
    cameras = {camera.name: camera for camera in seq.cameras}
    if obs.frames and {*obs.frames} != {*cameras}:
        yield f"frames are of cameras {sorted(obs.frames)}, but the sequence has {sorted(cameras)}"
    if not obs.frames and not obs.files:
        yield "the observation has neither frames nor files"
    ids = [label.instance_id for label in obs.labels]
    if len({*ids}) != len(ids):
        yield "two labels have one instance id"
    for name in sorted({*obs.frames} & {*cameras}):
        yield from _of_frames(name, obs.frames[name], cameras[name], len(seq), {*ids})
    for path, content in obs.files.items():
        if not isinstance(content, bytes):
            yield f"file {path!r} is a {type(content).__name__}, but must be bytes"
        try:
            check_path(path, "a file of the observation")
        except NimbusError as error:
            yield str(error)
    yield from _json("`renderer` of the observation", obs.renderer)


def _of_frames(name: str, frames: CameraFrames, camera: Camera, length: int, ids: set[int]) -> Iterator[str]:
    shape = (length, camera.height, camera.width)
    yield from _array(f"rgb of {name!r}", frames.rgb, np.uint8, (*shape, 3))
    planes: Mapping[str, tuple[Any, type]] = {
        "depth_m": (frames.depth_m, np.float32),
        "instance": (frames.instance, np.uint16),
        "semantic": (frames.semantic, np.uint16),
        "coverage": (frames.coverage, np.float32),
    }
    for key, (plane, dtype) in planes.items():
        if plane is None:
            continue
        faults = list(_array(f"{key} of {name!r}", plane, dtype, shape))
        yield from faults
        if faults:
            continue
        if key == "depth_m" and (plane < 0).any():
            yield f"depth_m of {name!r} has values below 0"
        if key == "instance" and (unnamed := {*np.unique(plane).tolist()} - ids - {0}):
            yield f"instance of {name!r} has the id {min(unnamed)}, which no label names"
        if key == "coverage" and ((plane < 0) | (plane > 1)).any():
            yield f"coverage of {name!r} is not within 0…1"


def _of_piece(piece: Piece, episode: Episode) -> Iterator[str]:
    assert episode.sequence is not None
    if piece.length != len(episode.sequence):
        yield f"the piece says {piece.length} frames, but the sequence has {len(episode.sequence)}"
    if piece.fingerprint != episode.request.fingerprint:
        yield "the piece does not keep the request's fingerprint"
    if not (episode.output / PIECES / piece.folder).is_dir():
        yield f"there is no folder {PIECES}/{piece.folder} in the output"
        return
    faults = torn(episode.output, piece.folder)
    yield from faults
    if not faults and read_piece(episode.output, piece.folder) != piece:
        yield "the piece that it returned is not the one that its manifest states"
    yield from output_faults(episode.output)
