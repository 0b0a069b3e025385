"""InternData-M1 as a format: a LeRobot dataset (v2.1 or v3.0) with LeRobot's usual names or the release's (`names`).

Each episode has, besides,

    traces/chunk-000/episode_000000.parquet   the plan, float64: robot, simulator's state, objects, cameras
    labels/chunk-000/episode_000000.jsonl     a line per frame (see `labels`)
    vqa/chunk-000/episode_000000.jsonl        a line per question (see `vqa`)
    vqa/chunk-000/episode_000000/*.jpg        the frames that these refer to
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from nimbusd.stages.motion import without_parts
from nimbusd.stages.store.beneath import read_beneath
from nimbusd.stages.store.columns import parquet_bytes
from nimbusd.stages.store.durable import to_json_lines
from nimbusd.stages.store.encode import encode_jpeg
from nimbusd.stages.store.formats.interndata import InternDataFormat, with_camera_names
from nimbusd.stages.store.formats.lerobot.content import write_lerobot
from nimbusd.stages.store.formats.lerobot.metadata import CHUNK_SIZE
from nimbusd.stages.store.formats.lerobot_v21 import LEROBOT_V21
from nimbusd.stages.store.formats.lerobot_v30 import LEROBOT_V30
from nimbusd.stages.store.formats.m1.labels import EpisodeMarks, label_lines
from nimbusd.stages.store.formats.m1.names import CAMERA_NAMES, IMAGE, M1_LAYOUT, MEANINGS, is_released
from nimbusd.stages.store.formats.m1.vqa import questions
from nimbusd.stages.store.formats.m1.writer import InternDataM1Args
from nimbusd.stages.store.outcome import refuse_failures
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.publish import Tree, link_own_files
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.types import Episode, Observation, Sequence

TRACE = "trace.parquet"
LABELS = "labels.jsonl"
VQA = "vqa.jsonl"
VQA_IMAGES = "vqa_images"


class InternDataM1(InternDataFormat[InternDataM1Args]):
    """Planning trace, labels per frame, and questions about them."""

    args_model = InternDataM1Args

    def write(
        self,
        draft: PieceDraft,
        seq: Sequence,
        obs: Observation,
        episode: Episode,
        args: InternDataM1Args,
        beat: Callable[[], None],
    ) -> None:
        if not args.keep_failures:
            refuse_failures(seq)
        released = args.names == "release"
        seq, obs = with_camera_names(seq, obs, {**(CAMERA_NAMES if released else {}), **args.cameras})
        layout = M1_LAYOUT if released else None
        write_lerobot(draft, seq, obs, episode, self.name, args.content(args.robot(seq)), beat, layout)
        _write_labels(draft, seq, obs, args, beat)
        draft.add(TRACE, parquet_bytes(trace_table(without_parts(seq, episode.scene))))

    def listed(self, key: str) -> bool:
        return key.startswith(("state.", "action."))  # the release's loader takes a number only as a list of one

    def extras(self, tree: Tree, sources: list[SourcePiece]) -> Mapping[str, Any]:
        for episode, piece in enumerate(sources):
            place = f"chunk-{episode // CHUNK_SIZE:03d}/episode_{episode:06d}"
            tree.link(f"traces/{place}.parquet", piece, TRACE)
            tree.link(f"labels/{place}.jsonl", piece, LABELS)
            for file in piece.files_under(VQA_IMAGES):
                tree.link(f"vqa/{place}/{Path(file.path).name}", piece, file.path)
            if piece.has(VQA):
                rows = [orjson.loads(line) for line in read_beneath(piece.root, VQA).splitlines()]
                tree.write(f"vqa/{place}.jsonl", to_json_lines(_published(row, episode, place) for row in rows))
        released = is_released(sources[0].record.features)
        return {
            **link_own_files(tree, sources),
            **({"camera_features": {"image": IMAGE}, "m1_columns": MEANINGS} if released else {}),
            "interndata_m1": {
                "traces": "traces/chunk-{chunk:03d}/episode_{episode:06d}.parquet: float64; poses T_world_x row by row",
                "labels": "labels/chunk-{chunk:03d}/episode_{episode:06d}.jsonl: one line per frame",
                "vqa": "vqa/chunk-{chunk:03d}/episode_{episode:06d}.jsonl: one line per question; images beside",
                "boxes": "u0, v0, u1, v1 along pixel edges; a single pixel in column i, row j is [i, j, i + 1, j + 1]",
                "points": "u, v in pixels; the centre of the top-left pixel is (0.5, 0.5)",
            },
        }


def _write_labels(
    draft: PieceDraft, seq: Sequence, obs: Observation, args: InternDataM1Args, beat: Callable[[], None]
) -> None:
    marks = EpisodeMarks.of(seq)
    lines = label_lines(seq, obs, marks, beat)
    draft.add(LABELS, to_json_lines(lines))
    if not args.vqa:
        return
    images: set[str] = set()
    rows = []
    sizes = {camera.name: (camera.width, camera.height) for camera in seq.cameras}
    for asked in questions(seq, obs, marks, lines):
        image = f"{asked.camera}_{asked.frame:06d}.jpg"
        if image not in images:
            content = encode_jpeg(obs.frames[asked.camera].rgb[asked.frame], args.jpeg_quality)
            draft.add(f"{VQA_IMAGES}/{image}", content)
            images.add(image)
        width, height = sizes[asked.camera]
        rows.append({**asdict(asked), "image": image, "width": width, "height": height})
    draft.add(VQA, to_json_lines(rows))


def trace_table(seq: Sequence) -> pa.Table:
    """The plan, row k = frame k, all in float64: every state and action, `object.<name>` and `camera.<name>`.

    Poses are T_world_…, 16 numbers row by row. This and the episode's layout (in `meta/nimbusd_episodes.jsonl`) are
    what a later rendering in another style needs.
    """
    columns = {"frame_index": pa.array(np.arange(len(seq), dtype=np.int64))}
    arrays: dict[str, Any] = {key: feature.values for key, feature in {**seq.states, **seq.actions}.items()}
    arrays |= {f"object.{name}": T for name, T in seq.T_world_object.items()}
    arrays |= {f"camera.{name}": T for name, T in seq.T_world_camera.items()}
    for key, values in arrays.items():
        rows = np.ascontiguousarray(values, np.float64).reshape(len(seq), -1)
        columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    return pa.table(columns)


def _published(row: Mapping[str, Any], episode: int, place: str) -> dict[str, Any]:
    """A question with its image as a path in the dataset, and its frame as the dataset counts."""
    rest = {key: value for key, value in row.items() if key not in ("frame", "image")}
    return {"episode_index": episode, "frame_index": row["frame"], "image": f"vqa/{place}/{row['image']}", **rest}


INTERNDATA_M1_V30 = InternDataM1("interndata-m1-v3.0", LEROBOT_V30)
INTERNDATA_M1_V21 = InternDataM1("interndata-m1-v2.1", LEROBOT_V21)
