"""`InternDataM1Writer`: manipulation episodes with planning trace, labels per frame, and questions about them.

A LeRobot dataset (v2.1 or v3.0) with LeRobot's usual names or the release's (`m1_names`), and for each episode

    traces/chunk-000/episode_000000.parquet   the plan, float64: robot, simulator's state, objects, cameras
    labels/chunk-000/episode_000000.jsonl     a line per frame (see `m1_labels`)
    vqa/chunk-000/episode_000000.jsonl        a line per question (see `m1_vqa`)
    vqa/chunk-000/episode_000000/*.jpg        the frames that these refer to
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from pydantic import Field

from nimbusd.stages.base import BaseWriter
from nimbusd.stages.motion import without_parts
from nimbusd.stages.store.beneath import read_beneath
from nimbusd.stages.store.columns import parquet_bytes
from nimbusd.stages.store.durable import to_json_lines
from nimbusd.stages.store.encode import encode_jpeg
from nimbusd.stages.store.formats.a1.writer import with_camera_names
from nimbusd.stages.store.formats.interndata import InternDataArgs, publish_outcomes
from nimbusd.stages.store.formats.lerobot.content import robot_type_of, write_lerobot
from nimbusd.stages.store.formats.m1.labels import EpisodeMarks, label_lines
from nimbusd.stages.store.formats.m1.names import CAMERA_NAMES, IMAGE, M1_LAYOUT, MEANINGS, is_released
from nimbusd.stages.store.formats.m1.vqa import questions
from nimbusd.stages.store.outcome import refuse_failures
from nimbusd.stages.store.piece import PieceDraft, draft_piece
from nimbusd.stages.store.publish import Tree, link_own_files
from nimbusd.stages.store.record import SourcePiece
from nimbusd.stages.types import Episode, Observation, Piece, Sequence

TRACE = "trace.parquet"
LABELS = "labels.jsonl"
VQA = "vqa.jsonl"
VQA_IMAGES = "vqa_images"
_CHUNK_EPISODES = 1000


class InternDataM1Args(InternDataArgs):
    """How manipulation episodes are stored as InternData-M1."""

    names: Literal["lerobot", "release"] = Field(
        default="lerobot",
        description="Names of features: LeRobot's usual ones, or the release's (`state.joints`, `video.base_view` …).",
    )
    cameras: dict[str, str] = Field(
        default_factory=dict,
        description="Camera's name in the sequence → its name in the dataset; others keep theirs, or with "
        "`names: release` are called as there.",
    )
    vqa: bool = Field(default=True, description="Ask questions about the frames.")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Quality of the questions' images.")


class InternDataM1Writer(BaseWriter[InternDataM1Args]):
    """Stores what a robot did with its labels. Safe to call from several threads."""

    version = "1.2.0"
    args_model = InternDataM1Args

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        args = self.args
        if not args.keep_failures:
            refuse_failures(seq)
        released = args.names == "release"
        seq, obs = with_camera_names(seq, obs, {**(CAMERA_NAMES if released else {}), **args.cameras})
        layout = M1_LAYOUT if released else None
        with draft_piece(episode.output, episode.request) as draft:
            settings = args.content(args.robot_type or robot_type_of(seq))
            write_lerobot(draft, seq, obs, episode, self.args.format("m1"), settings, self.beat, layout)
            self._write_labels(draft, seq, obs)
            draft.add(TRACE, parquet_bytes(trace_table(without_parts(seq, episode.scene))))
            piece = draft.commit(len(seq))
        self.beat()
        return piece

    def _write_labels(self, draft: PieceDraft, seq: Sequence, obs: Observation) -> None:
        marks = EpisodeMarks.of(seq)
        lines = label_lines(seq, obs, marks, self.beat)
        draft.add(LABELS, to_json_lines(lines))
        if not self.args.vqa:
            return
        images: set[str] = set()
        rows = []
        sizes = {camera.name: (camera.width, camera.height) for camera in seq.cameras}
        for asked in questions(seq, obs, marks, lines):
            image = f"{asked.camera}_{asked.frame:06d}.jpg"
            if image not in images:
                content = encode_jpeg(obs.frames[asked.camera].rgb[asked.frame], self.args.jpeg_quality)
                draft.add(f"{VQA_IMAGES}/{image}", content)
                images.add(image)
            width, height = sizes[asked.camera]
            rows.append({**asdict(asked), "image": image, "width": width, "height": height})
        draft.add(VQA, to_json_lines(rows))

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        return self.args.refused_sizes(sizes)

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        # The release's loader takes a number only as a list of one.
        return publish_outcomes(output, pieces, job, self.args, "m1", add_m1, final, self.beat, _is_released_key)


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


def add_m1(tree: Tree, stored: list[SourcePiece]) -> Mapping[str, Any]:
    """The files beside LeRobot's own, and what `meta/conventions.json` says about them."""
    for episode, piece in enumerate(stored):
        place = f"chunk-{episode // _CHUNK_EPISODES:03d}/episode_{episode:06d}"
        tree.link(f"traces/{place}.parquet", piece, TRACE)
        tree.link(f"labels/{place}.jsonl", piece, LABELS)
        for file in piece.files_under(VQA_IMAGES):
            tree.link(f"vqa/{place}/{Path(file.path).name}", piece, file.path)
        if any(file.path == VQA for file in piece.piece.files):
            rows = [orjson.loads(line) for line in read_beneath(piece.root, VQA).splitlines()]
            tree.write(f"vqa/{place}.jsonl", to_json_lines(_published(row, episode, place) for row in rows))
    released = is_released(stored[0].record["features"])
    return {
        **link_own_files(tree, stored),
        **({"camera_features": {"image": IMAGE}, "m1_columns": MEANINGS} if released else {}),
        "interndata_m1": {
            "traces": "traces/chunk-{chunk:03d}/episode_{episode:06d}.parquet: float64; poses T_world_x row by row",
            "labels": "labels/chunk-{chunk:03d}/episode_{episode:06d}.jsonl: one line per frame",
            "vqa": "vqa/chunk-{chunk:03d}/episode_{episode:06d}.jsonl: one line per question; images beside",
            "boxes": "u0, v0, u1, v1 along pixel edges; a single pixel in column i, row j is [i, j, i + 1, j + 1]",
            "points": "u, v in pixels; the centre of the top-left pixel is (0.5, 0.5)",
        },
    }


def _is_released_key(key: str) -> bool:
    return key.startswith(("state.", "action."))


def _published(row: Mapping[str, Any], episode: int, place: str) -> dict[str, Any]:
    """A question with its image as a path in the dataset, and its frame as the dataset counts."""
    rest = {key: value for key, value in row.items() if key not in ("frame", "image")}
    return {"episode_index": episode, "frame_index": row["frame"], "image": f"vqa/{place}/{row['image']}", **rest}
