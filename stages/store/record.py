"""`episode.json` of a piece: all that publishing needs to know of an episode besides its frames.

The part `facts` is the same whenever the episode is made again; the part `run` (node, attempt, times) is not,
and never reaches a file that holds state columns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from nimbusd.stages.errors import StoreError
from nimbusd.stages.seeds import scene_key
from nimbusd.stages.store.columns import Column, column_from_json
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.stats import Stats, stats_from_json
from nimbusd.stages.types import Episode, Observation, Piece, PieceFile, Sequence

RECORD = "episode.json"
_RUN_KEYS = ("node", "slot", "started_unix_s")


def episode_record(
    seq: Sequence,
    obs: Observation,
    episode: Episode,
    *,
    format_name: str,
    robot: str,
    columns: list[Column],
    videos: Mapping[str, Any],
    stats: Mapping[str, Stats],
) -> dict[str, Any]:
    """The record. videos: feature key → its `info`. stats: feature key → statistics of this episode."""
    request, scene = episode.request, episode.scene
    context, notes = dict(episode.context), dict(seq.notes)
    run = {key: context.pop(key) for key in _RUN_KEYS if key in context}
    quality = context.pop("quality", {"grade": "ungraded", "rule_set_version": None})
    facts = {
        "schema_version": SCHEMA_VERSION,
        "episode_id": request.episode_id,
        "job": request.job,
        "scene": {
            "id": request.scene,
            "variant": request.variant,
            "content_hash": scene.content_hash if scene else None,
            "rooms": [asdict(room) for room in scene.rooms] if scene else [],
            "provenance": dict(scene.provenance) if scene else {},
        },
        "index_in_scene": request.index,
        "task": seq.task,
        "robot": robot,
        "result": notes.pop("result", {"success": True, "reason": None}),
        "quality": quality,
        "components": context.pop("components", {}),
        "seeds": context.pop("seeds", None) or _seeds(episode),
        "config": context,
        "renderer": dict(obs.renderer),
        "notes": notes,
        "cameras": {
            camera.name: {
                "width": camera.width,
                "height": camera.height,
                "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
                "T_base_camera": seq.T_base_camera[camera.name],
                "axes": "opengl",
            }
            for camera in seq.cameras
        },
        "conventions": "meta/conventions.json",
        "label_table": f"{request.scene}@{scene.content_hash[:12]}" if scene else request.scene,
    }
    run |= {"attempt": request.attempt, "finished_unix_s": time.time(), "timings_s": dict(episode.timings_s)}
    return {
        "format": format_name,
        "length": len(seq),
        "fps": seq.fps,
        "features": {column.key: column.describe() for column in columns},
        "videos": dict(videos),
        "stats": dict(stats),
        "labels": [asdict(label) for label in obs.labels],
        "facts": facts,
        "run": run,
    }


def _seeds(episode: Episode) -> dict[str, Any]:
    """What `nimbusd.stages.seeds.stream` needs to make the episode's generators again."""
    request, job = episode.request, episode.context.get("job", {})
    return {
        "job": job.get("seed") if isinstance(job, Mapping) else None,
        "scene_key": list(scene_key(request.scene)),
        "index": request.index,
        "variant": request.variant,
    }


@dataclass(frozen=True)
class StoredPiece:
    """A piece that is about to be published, with its record parsed."""

    root: Path
    piece: Piece
    record: Mapping[str, Any]

    @property
    def length(self) -> int:
        return self.piece.length

    @property
    def fps(self) -> float:
        return float(self.record["fps"])

    @property
    def task(self) -> str:
        return str(self.facts["task"])

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.record["facts"]  # type: ignore[no-any-return]

    @cached_property
    def columns(self) -> list[Column]:
        """Features of the episode without LeRobot's default ones, in their order."""
        return [column_from_json(key, entry) for key, entry in self.record["features"].items()]

    @cached_property
    def stats(self) -> dict[str, Stats]:
        return {key: stats_from_json(stats) for key, stats in self.record["stats"].items()}

    def file(self, path: str) -> PieceFile:
        """The manifest's entry for `path`. Raises StoreError if the piece has no such file."""
        for file in self.piece.files:
            if file.path == path:
                return file
        raise StoreError(f"piece {self.piece.folder} has no file {path}; was it stored with other arguments?")

    def files_under(self, folder: str) -> list[PieceFile]:
        """Files whose path starts with `folder`/, sorted by path."""
        return [file for file in self.piece.files if file.path.startswith(folder + "/")]

    def metadata(self, episode_index: int) -> dict[str, Any]:
        """The episode's line in `meta/nimbusd_episodes.jsonl`."""
        row = {"episode_index": episode_index, "length": self.length, **self.facts}
        return row | {"run": self.record["run"], "piece": self.piece.folder}


def load_piece(output: Path, piece: Piece, format_name: str) -> StoredPiece:
    """Read a piece's record. Raises StoreError if it is missing, torn or of another format."""
    root = output / PIECES / piece.folder
    try:
        record = orjson.loads((root / RECORD).read_bytes())
        found = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"piece {piece.folder}: {RECORD} cannot be read ({error}). Make the episode again.") from error
    if found != format_name:
        raise StoreError(
            f"piece {piece.folder} was stored for {found}, not for {format_name}. "
            "Use the format of the pieces, or another output folder."
        )
    return StoredPiece(root, piece, record)
