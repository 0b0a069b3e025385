"""`episode.json` of a piece: all that publishing needs to know of an episode besides its frames.

The part `facts` is the same whenever the episode is made again; the part `run` (node, attempt, times, the packages that
it was made with, and which of them differ from those that the job began with) is not, and never reaches a file that
holds state columns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from nimbusd.stages.errors import StoreError
from nimbusd.stages.notes import RESULT, SUCCESS, Notes
from nimbusd.stages.seeds import scene_key
from nimbusd.stages.store.beneath import check_path, file_beneath, read_beneath
from nimbusd.stages.store.columns import Column, column_from_json
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.formats.table import FORMATS, format_named, format_names
from nimbusd.stages.store.made_with import packages_hash
from nimbusd.stages.store.piece import piece_root
from nimbusd.stages.store.stats import NEEDED, Stats, stats_from_json
from nimbusd.stages.types import Episode, Observation, Piece, PieceFile, Sequence

RECORD = "episode.json"
MOST_RECORD_BYTES = 64 << 20
_RUN_KEYS = ("node", "slot", "started_unix_s", "environment")


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
            "files": context.pop("scene_files", {}),
        },
        "index_in_scene": request.index,
        "task": seq.task,
        "robot": robot,
        "result": notes.pop(RESULT, SUCCESS.described()),
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
    """The arguments with which `nimbusd.stages.seeds.stream` makes the episode's generators again."""
    request, job = episode.request, episode.context.get("job", {})
    return {
        "job": job.get("seed") if isinstance(job, Mapping) else None,
        "scene_key": list(scene_key(request.scene)),
        "index": request.index,
        "variant": request.variant,
    }


@dataclass(frozen=True)
class SourcePiece:
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
    def notes(self) -> Notes:
        """The notes that the planner made; the record's model has checked the parts of the episode among them."""
        return Notes(self.facts["notes"])

    @cached_property
    def columns(self) -> list[Column]:
        """Features of the episode without LeRobot's default ones, in their order."""
        return [column_from_json(key, entry) for key, entry in self.record["features"].items()]

    @cached_property
    def stats(self) -> dict[str, Stats]:
        return {key: stats_from_json(stats) for key, stats in self.record["stats"].items()}

    def has(self, path: str) -> bool:
        """True if the piece has a file of that path."""
        return any(file.path == path for file in self.piece.files)

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
        run = dict(self.record["run"])
        if environment := run.get("environment"):  # its packages are in `meta/environment.json`, once for all episodes
            run["environment"] = {key: value for key, value in environment.items() if key != "packages"}
        return row | {"run": run, "piece": self.piece.folder}


# --- what a record must say, whoever wrote it ---

_Text = Annotated[str, Field(max_length=100_000)]
_Name = Annotated[str, Field(min_length=1, max_length=500)]
_Whole = Annotated[int, Field(ge=0, le=2**53)]
Real = Annotated[float, Field(allow_inf_nan=False)]


class _Model(BaseModel):
    """Types are not bent; what is said beyond what publishing needs is kept as it is."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Feature(_Model):
    dtype: Annotated[str, StringConstraints(pattern=r"^(video|image|bool|u?int(8|16|32|64)|float(16|32|64))$")]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=2**31)]], Field(min_length=1, max_length=4)]
    names: list[_Text] | None = None

    def stats_shape(self) -> tuple[int, ...]:
        """Of each of its statistics but `count`."""
        return (3, 1, 1) if self.dtype in ("video", "image") else tuple(self.shape)


class _SceneFacts(_Model):
    id: _Name
    variant: _Whole
    provenance: dict[str, Any] = Field(default_factory=dict)


class _SubTask(_Model):
    instruction: _Text
    start: int
    stop: int


class _Notes(_Model):
    sub_tasks: list[_SubTask] | None = None


class _Result(_Model):
    success: bool


class _Facts(_Model):
    schema_version: _Text
    episode_id: _Text
    job: _Name
    scene: _SceneFacts
    index_in_scene: _Whole
    task: _Text
    robot: _Text
    result: _Result
    notes: _Notes
    cameras: dict[_Name, dict[str, Any]]
    label_table: _Text


_Packages = Annotated[dict[_Name, _Name], Field(max_length=10_000)]


class _Environment(_Model):
    hash: _Text = ""
    packages: _Packages | None = None
    before: _Packages | None = None
    now: _Packages | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.packages and packages_hash(self.packages) != self.hash:
            raise ValueError("its hash is not that of its packages")
        return self


class _Run(_Model):
    environment: _Environment | None = None


class PieceRecord(_Model):
    """The shape of `episode.json`."""

    format: _Name
    length: Annotated[int, Field(ge=1, le=2**30)]
    fps: Annotated[float, Field(gt=0, le=1e6)]
    features: Annotated[dict[_Name, _Feature], Field(max_length=10_000)]
    videos: dict[_Name, dict[str, Any]]
    stats: dict[_Name, dict[str, Any]]
    labels: list[dict[str, Any]]
    facts: _Facts
    run: _Run

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in (*self.facts.cameras, *self.videos):
            if "/" in check_path(name, RECORD):
                raise ValueError(f"{name!r} cannot be a part of a path")
        for key, feature in self.features.items():
            stats = stats_from_json(self.stats.get(key, {}))
            if missing := NEEDED - stats.keys():
                raise ValueError(f"feature {key!r} has no statistic {min(missing)!r}")
            for name, value in stats.items():
                wanted = (1,) if name == "count" else feature.stats_shape()
                if value.shape != wanted or not np.isfinite(value).all():
                    raise ValueError(f"statistic {name!r} of feature {key!r} is not {wanted} finite numbers")
            if not 0 < stats["count"][0] <= 2**53:
                raise ValueError(f"feature {key!r} has statistics of {stats['count'][0]} values")
        return self


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The record as it is written. Raises StoreError if publishing could not use it."""
    content = to_json(record)
    parse_record(content, RECORD)
    return content


def parse_record(content: bytes, where: str) -> dict[str, Any]:
    """The record in `content`. Raises StoreError, which names the key, if it is torn or lacks what publishing needs."""
    try:
        record: dict[str, Any] = orjson.loads(content)
        _model_of(record).model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])[:200]
        raise StoreError(f"{where} is not what a writer writes: {key or 'it'}: {first['msg']}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{where} cannot be read ({error})") from error
    return record


def _model_of(record: Any) -> type[PieceRecord]:
    """The shape of a record, which some formats add to. Those of other packages are not imported for it."""
    name = record.get("format") if isinstance(record, Mapping) else None
    return format_named(name).record_model if isinstance(name, str) and name in FORMATS else PieceRecord


def is_ours(content: bytes) -> bool:
    """True if `content` claims to be a record of a format in the table, and not a file of somebody's own writer."""
    try:
        found = orjson.loads(content)["format"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(found, str) and found in format_names()


def load_piece(output: Path, piece: Piece, format_name: str) -> SourcePiece:
    """Read a piece's record. Raises StoreError, which names the piece, if it is missing, torn or of another format."""
    root = piece_root(output, piece.folder)
    where = f"piece {piece.folder}: {RECORD}"
    try:
        record = parse_record(read_beneath(root, RECORD, MOST_RECORD_BYTES), where)
    except OSError as error:
        raise StoreError(f"{where} cannot be read ({error}). Make the episode again.") from error
    except StoreError as error:
        raise StoreError(f"{error}. Make the episode again.") from error
    if record["format"] != format_name:
        raise StoreError(
            f"piece {piece.folder} was stored for {record['format'][:80]!r}, not for {format_name}. "
            "Use the format of the pieces, or another output folder."
        )
    if record["length"] != piece.length:
        raise StoreError(
            f"{where} says {record['length']} frames, the manifest {piece.length}. Make the episode again."
        )
    return SourcePiece(root, piece, record)


def states_of(source: SourcePiece, path: str) -> Any:
    """The piece's table of states, an Arrow table with a row per frame and a column per feature that is stored.

    Raises StoreError, which names the piece, if it is not that.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source.file(path)
    try:
        table = pq.read_table(file_beneath(source.root, path), partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        where = f"piece {source.piece.folder}: {path}"
        raise StoreError(f"{where} cannot be read ({error}). Make the episode again.") from error
    types = {field.name: field.type for field in table.schema}
    wrong = [column.key for column in source.columns if column.stored and types.get(column.key) != column.arrow_type()]
    if table.num_rows != source.length or wrong:
        what = f"no column {wrong[0]!r} of the right type" if wrong else f"{table.num_rows} rows, not {source.length}"
        raise StoreError(f"piece {source.piece.folder}: {path} has {what}. Make the episode again.")
    return table
