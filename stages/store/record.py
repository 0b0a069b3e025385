"""`episode.json` of a piece: all that publishing needs to know of an episode besides its frames.

The part `facts` is the same whenever the episode is made again; the part `run` (node, attempt, times, the packages that
it was made with, and which of them differ from those that the job began with) is not, and never reaches a file that
holds state columns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson
from pydantic import ValidationError

from nimbusd.stages.errors import StoreError
from nimbusd.stages.notes import RESULT, SUCCESS
from nimbusd.stages.seeds import scene_key
from nimbusd.stages.store.columns import Column
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.formats.table import FORMATS, format_named, format_names
from nimbusd.stages.store.record_model import PieceRecord
from nimbusd.stages.store.stats import Stats
from nimbusd.stages.types import Episode, Observation, Sequence

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


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The record as it is written. Raises StoreError if publishing could not use it."""
    content = to_json(record)
    parse_record(content, RECORD)
    return content


def parse_record(content: bytes, where: str) -> dict[str, Any]:
    """The record in `content`. Raises StoreError, which names the key, if it is torn or lacks what publishing needs."""
    return parsed_record(content, where)[0]


def parsed_record(content: bytes, where: str, format_name: str = "") -> tuple[dict[str, Any], PieceRecord]:
    """The record in `content`, as JSON values and in types. Raises StoreError as `parse_record`.

    format_name: the format that is being published, of which the process has the code. Without it, those of other
    packages are not imported, and their records must have no more than the shape of all.
    """
    try:
        values: dict[str, Any] = orjson.loads(content)
        name = values.get("format") if isinstance(values, Mapping) else None
        model = format_named(name).record_model if name in FORMATS or name == format_name != "" else PieceRecord
        return values, model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])[:200]
        raise StoreError(f"{where} is not what a writer writes: {key or 'it'}: {first['msg']}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{where} cannot be read ({error})") from error


def is_ours(content: bytes) -> bool:
    """True if `content` claims to be a record of a format in the table, and not a file of somebody's own writer."""
    try:
        found = orjson.loads(content)["format"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(found, str) and found in format_names()
