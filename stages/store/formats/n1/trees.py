"""InternData-N1 (navigation): one LeRobot v2.1 tree per scene, with flat folders of frames beside the videos.

What is published is a superset: LeRobot's default columns, true fps, splits and stated conventions, so that both
InternNav's loader and the stock LeRobot v2.1 reader take it. A piece holds

    episode.json, data.parquet, annotations.parquet     as for the LeRobot formats (annotations: segmentation only)
    rgb/000000.jpg …  depth/000000.png …                 frames
    videos/observation.video.{trajectory,depth}.mp4      to look at
    pointcloud.ply                                       of the scene
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from nimbusd.stages.base import no_beat
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import check_path, read_beneath
from nimbusd.stages.store.columns import parquet_bytes, schema
from nimbusd.stages.store.content import checked_frames, encode_all, state_columns
from nimbusd.stages.store.conventions import counts_to_depth, depth_to_counts
from nimbusd.stages.store.durable import sync_file
from nimbusd.stages.store.encode import encode_jpeg, encode_png, encode_video, video_facts
from nimbusd.stages.store.formats.lerobot.content import ANNOTATIONS, DATA, annotation_table, image_column
from nimbusd.stages.store.formats.lerobot.metadata import link_annotations
from nimbusd.stages.store.formats.lerobot_v21.build import Content, content_of, write_v21
from nimbusd.stages.store.formats.n1.pointcloud import obstacle_mask, ply_bytes, read_ply, scene_points
from nimbusd.stages.store.formats.n1.record import N1Record
from nimbusd.stages.store.media import ContentSettings
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.publish import Tree, write_nimbusd_metadata
from nimbusd.stages.store.record import RECORD, episode_record, record_bytes
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.stats import image_stats, vector_stats
from nimbusd.stages.types import F32, U8, Episode, Feature, Observation, Sequence

FORMAT = "interndata-n1"
FEWEST_FRAMES = 8
TRAJECTORY = "observation.video.trajectory"
DEPTH_VIDEO = "observation.video.depth"
RGB_FOLDER = "observation.images.rgb"
DEPTH_FOLDER = "observation.images.depth"
POINT_CLOUD = "pointcloud.ply"
INTRINSIC = "observation.camera_intrinsic"
EXTRINSIC = "observation.camera_extrinsic"
POSE = "action"
WHOLE = (INTRINSIC, EXTRINSIC, POSE)
"""Columns that InternData-N1 has as matrices; LeRobot's tools to edit datasets do not take them."""
N1_BASE = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64)
"""(4, 4) from our base frame (x forward, y left, z up) to InternData-N1's: x right, y forward, z up."""
_FARTHEST_SHOWN_M = 5.0
# Loaders look into chunk-000 only, so all of a scene's episodes must be there.
_ONE_CHUNK = 1_000_000


def write_n1(
    draft: PieceDraft,
    seq: Sequence,
    obs: Observation,
    episode: Episode,
    settings: ContentSettings,
    jpeg_quality: int,
    obstacles_m: tuple[float, float],
    beat: Callable[[], None],
) -> None:
    """Write the content of an episode's piece. obstacles_m: lowest and greatest height above the floor.

    Raises StoreError for anything but one camera with depth, at least 8 frames and the scene itself.
    """
    frames = checked_frames(seq, obs)
    if len(frames) != 1:
        raise StoreError(f"interndata-n1 has one camera per tree, the sequence has {len(frames)}: {', '.join(frames)}")
    if len(seq) < FEWEST_FRAMES:
        raise StoreError(f"interndata-n1 needs {FEWEST_FRAMES} frames per episode, not {len(seq)}; plan longer paths")
    (camera, seen), intrinsics = next(iter(frames.items())), seq.cameras[0]
    if seen.depth_m is None:
        raise StoreError("interndata-n1 needs depth: switch it on in the renderer's arguments")
    if episode.scene is None:
        raise StoreError("interndata-n1 needs the scene for its point cloud, but the episode came without one")
    length = len(seq)
    own = {
        INTRINSIC: Feature(np.tile(intrinsics.matrix(), (length, 1, 1))),
        EXTRINSIC: Feature(np.tile(seq.T_base_camera[camera], (length, 1, 1))),
        POSE: Feature(np.asarray(seq.T_world_camera[camera])),
    }
    others = {key if key not in own else f"{key}.command": f for key, f in {**seq.states, **seq.actions}.items()}
    columns, values = state_columns(own | others, length)
    stats = {column.key: vector_stats(values[column.key]) for column in columns}
    table = pa.Table.from_arrays([column.array(values[column.key]) for column in columns], schema=schema(columns))
    draft.add(DATA, parquet_bytes(table))

    counts = [depth_to_counts(image) for image in seen.depth_m]
    previews = {TRAJECTORY: seen.rgb, DEPTH_VIDEO: np.stack([_grey(counts_to_depth(image)) for image in counts])}
    videos: dict[str, Any] = {}
    for key, pixels in previews.items():
        content = encode_video(pixels, seq.fps, settings.video, beat)
        draft.add(f"videos/{key}.mp4", content)
        videos[key] = video_facts(content)
        columns.append(image_column(key, "video", pixels))
        stats[key] = image_stats(pixels)
    jpegs = encode_all(lambda image: encode_jpeg(image, jpeg_quality), seen.rgb, settings.pool_size, beat)
    for index, content in enumerate(jpegs):
        draft.add(f"rgb/{index:06d}.jpg", content)
    for index, content in enumerate(encode_all(encode_png, counts, settings.pool_size, beat)):
        draft.add(f"depth/{index:06d}.png", content)
    annotations = annotation_table(frames, seq.fps, replace(settings, depth=False), beat)
    if annotations is not None:
        draft.add(ANNOTATIONS, parquet_bytes(annotations))

    points, colors = scene_points(episode.scene)
    floors = sorted({room.z_m for room in episode.scene.rooms}) or [_floor_below(seq, camera)]
    draft.add(POINT_CLOUD, ply_bytes(points, colors, obstacle_mask(points, floors, *obstacles_m)))
    record = episode_record(
        seq, obs, episode, format_name=FORMAT, robot=settings.robot, columns=columns, videos=videos, stats=stats
    )
    record |= {"floors_m": floors, "obstacles_m": obstacles_m}
    draft.add(RECORD, record_bytes(record))
    beat()


def in_n1_axes(piece: SourcePiece) -> Content:
    """The columns of a piece, with the camera's mounting in the base frame that InternNav's loader takes.

    It turns the mounting's inverse into where the robot faces (`relative_pose` in InternNav's
    `navdp_lerobot_dataset.py`): a base with x forward has it read every goal turned by 90 degrees.
    """
    table, stats = content_of(piece)
    (column,) = [column for column in piece.columns if column.key == EXTRINSIC]
    mounting = N1_BASE @ np.array(table[EXTRINSIC].to_pylist(), np.float64).reshape(-1, 4, 4)
    place = table.column_names.index(EXTRINSIC)
    turned = table.set_column(place, table.schema.field(EXTRINSIC), column.array(mounting))
    return turned, {**stats, EXTRINSIC: vector_stats(mounting)}


def mounting_fault(tree_version: str, table: pa.Table, meta: Mapping[str, Any]) -> str:
    """The fault of the mounting that an episode of a tree states; empty if it is that of its metadata.

    tree_version: `schema_version` of its conventions; before 1.1.0 it was in our own base frame.
    """
    (camera,) = meta["cameras"].values()
    own = np.array(camera["T_base_camera"], np.float64)
    wanted = own if tree_version == "1.0.0" else N1_BASE @ own
    stated = np.array(table[EXTRINSIC].to_pylist(), np.float64).reshape(-1, 4, 4)
    if np.allclose(stated, wanted, atol=1e-5):
        return ""
    return f"{EXTRINSIC} is not the mounting of its camera in a base with x right, y forward, z up"


def _floor_below(seq: Sequence, camera: str) -> float:
    """Height in whole millimetres of the floor under the first frame, for scenes whose rooms are not known."""
    T_world_base = np.asarray(seq.T_world_camera[camera])[0] @ np.linalg.inv(seq.T_base_camera[camera])
    return round(float(T_world_base[2, 3]), 3)


def _grey(depth_m: F32) -> U8:
    """(H, W, 3) uint8 to look at: near is bright, 5 m and farther dark, no reading black."""
    near = 1 - depth_m.clip(0, _FARTHEST_SHOWN_M) / _FARTHEST_SHOWN_M
    grey = np.where(depth_m > 0, 30 + 225 * near, 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def build_n1(
    root: Path, sources: list[SourcePiece], job: Mapping[str, Any], beat: Callable[[], None] = no_beat
) -> None:
    """Write the trees `<job>_<camera>/<scene>` of `sources`, in this order, into the empty folder `root`.

    beat: called for every file.

    Randomized variants of a scene look different and so are scenes of their own: `<scene>_v001` …
    """
    trees: dict[str, list[SourcePiece]] = {}
    for piece in sources:
        trees.setdefault(tree_path(piece), []).append(piece)
    for path, pieces in trees.items():
        folder = root / path
        folder.mkdir(parents=True)
        _build_tree(Tree(folder, beat), pieces, job)
    for folder in sorted({(root / path).parent for path in trees}):
        sync_file(folder)
    sync_file(root)


def tree_path(piece: SourcePiece) -> str:
    """`<group>/<scene>` of an episode."""
    facts = piece.facts
    camera, variant = next(iter(facts.cameras)), facts.scene.variant
    scene = quote(facts.scene.id, safe=" ") + (f"_v{variant:03d}" if variant else "")
    return check_path(f"{quote(facts.job, safe=' ')}_{camera}/{scene}", f"piece {piece.piece.folder}")


def _build_tree(tree: Tree, sources: list[SourcePiece], job: Mapping[str, Any]) -> None:
    ranges = []
    first = 0
    for piece in sources:
        ranges.append({"image_index": {"min": first, "max": first + piece.length - 1}})
        first += piece.length
    shapes = write_v21(tree, sources, chunk_episodes=_ONE_CHUNK, stats_extra=ranges, content=in_n1_axes, whole=WHOLE)
    for episode, piece in enumerate(sources):
        for source, folder in (("rgb", RGB_FOLDER), ("depth", DEPTH_FOLDER)):
            for file in piece.files_under(source):
                frame = Path(file.path).name
                tree.link(f"videos/chunk-000/{folder}/{episode:06d}_{frame}", piece, file.path)
    annotations = link_annotations(tree, sources, _ONE_CHUNK)
    _write_point_cloud(tree, sources)
    extra = {
        **annotations,
        "shapes": shapes,
        "frames": f"videos/chunk-000/{RGB_FOLDER} (.jpg) and videos/chunk-000/{DEPTH_FOLDER} (.png): "
        "<episode:06d>_<frame:06d>, so that names sort in time order",
        "columns": {
            INTRINSIC: "3x3 camera matrix K",
            EXTRINSIC: "constant: the camera's mounting in a base with x right, y forward, z up, unlike base_frame; "
            "element [2][3] is the camera's height above the floor",
            POSE: "T_world_camera of the frame",
        },
        "point_cloud": {"frame": "world", "obstacle_color": [0, 0, 0.5]},
    }
    write_nimbusd_metadata(tree, sources, job, extra)
    tree.finish()


def _write_point_cloud(tree: Tree, sources: list[SourcePiece]) -> None:
    """The cloud of the first episode, with obstacles above the floors that any of the episodes is on."""
    first, heights = sources[0], [_heights(piece) for piece in sources]
    floors = sorted({floor for record in heights for floor in record.floors_m})
    if floors == heights[0].floors_m:
        tree.link(f"meta/{POINT_CLOUD}", first, POINT_CLOUD)
        return
    points, colors = read_ply(read_beneath(first.root, POINT_CLOUD))
    low_m, high_m = heights[0].obstacles_m
    obstacles = obstacle_mask(points, floors, low_m, high_m)
    tree.write(f"meta/{POINT_CLOUD}", ply_bytes(points, colors, obstacles))


def _heights(piece: SourcePiece) -> N1Record:
    assert isinstance(piece.record, N1Record), "load_piece reads a record by its format's model"
    return piece.record
