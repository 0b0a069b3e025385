"""InternData-M1's labels of an episode: per frame and camera the boxes, the end effector, grasp and key points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.errors import StoreError
from nimbusd.stages.notes import KeyPointNote, Notes, SubTask
from nimbusd.stages.store.arm_columns import arm_prefixes, tcp_poses
from nimbusd.stages.store.frame_labels import boxes, project, rounded, visible
from nimbusd.stages.types import F64, U16, Camera, CameraFrames, Label, Observation, Sequence


@dataclass(frozen=True, slots=True)
class Point:
    """A point worth pointing at, from the sequence's notes. positions: (T, 3) world metres, it may move.

    kind: `grasp`, `place`, `press`, `push`, `handle`. target: the object it belongs to, empty for the world.
    row: the frame at which the robot reaches it.
    """

    name: str
    kind: str
    target: str
    row: int
    positions: F64
    width_m: float


@dataclass(frozen=True)
class EpisodeMarks:
    """The marks of an episode: tools, points, parts and names, which a sequence states besides its columns.

    tcp: arm (empty for the only one) → (T, 4, 4) T_world_tcp. nouns: object's name → how one speaks of it.
    """

    tcp: Mapping[str, F64]
    points: tuple[Point, ...]
    steps: tuple[SubTask, ...]
    nouns: Mapping[str, str]

    @classmethod
    def of(cls, seq: Sequence) -> EpisodeMarks:
        """From the columns of InternData-A1 and the notes `keypoints`, `sub_tasks` and `nouns`.

        Raises StoreError if the tool's pose is in no column, or a note points at what is not there.
        """
        prefixes = arm_prefixes(seq.states)
        if not prefixes:
            raise StoreError("InternData-M1 needs states.tcp_to_robot_pose and its like; `a1_columns` makes them")
        tcp = {prefix.rstrip("_"): tcp_poses(seq.states, prefix) for prefix in prefixes}
        notes = Notes(seq.notes)
        return cls(tcp, tuple(_point(note, seq) for note in notes.key_points), notes.sub_tasks, notes.nouns)

    def noun(self, name: str) -> str:
        """An object's name as one says it."""
        return self.nouns.get(name) or name.replace("_", " ")

    def step_at(self, frame: int) -> SubTask | None:
        return next((step for step in self.steps if step.start <= frame < step.stop), None)

    def trace(self, step: SubTask) -> F64 | None:
        """Positions (N, 3) of the tool that works in `step`; None if it names none of several arms."""
        arm = step.arm if step.arm in self.tcp else next(iter(self.tcp)) if len(self.tcp) == 1 else None
        return None if arm is None else np.asarray(self.tcp[arm][step.start : step.stop, :3, 3])


def _point(note: KeyPointNote, seq: Sequence) -> Point:
    local = np.array([*note.position, 1.0])
    if not note.frame:
        positions = np.tile(local[:3], (len(seq), 1))
    elif note.frame in seq.T_world_object:
        positions = (np.asarray(seq.T_world_object[note.frame], np.float64) @ local)[:, :3]
    else:
        raise StoreError(f"key point {note.name!r} moves with {note.frame!r}, whose poses the sequence does not have")
    return Point(note.name, note.kind, note.frame, note.row, positions, note.width_m)


def label_lines(seq: Sequence, obs: Observation, marks: EpisodeMarks, beat: Callable[[], None]) -> list[dict[str, Any]]:
    """One JSON value per frame: {"frame_index", "cameras": {camera: {"boxes", "tcp", "points"}}}.

    boxes: [{"name", "category", "instance_id", "box", "pixels"}]. tcp: arm → {"uv", "depth_m", "visible"}.
    points: [{"name", "kind", "object", "reached_at", "uv", "depth_m", "visible"}]. `uv` is null for what is behind
    the camera, `visible` where there is no depth to tell.
    """
    named = {label.instance_id: label for label in obs.labels}
    lines = []
    for frame in range(len(seq)):
        cameras = {
            camera.name: _frame(
                camera, np.asarray(seq.T_world_camera[camera.name])[frame], obs.frames[camera.name], frame, marks, named
            )
            for camera in seq.cameras
        }
        lines.append({"frame_index": frame, "cameras": cameras})
        beat()
    return lines


def _frame(
    camera: Camera, T: F64, frames: CameraFrames, frame: int, marks: EpisodeMarks, named: Mapping[int, Label]
) -> dict[str, Any]:
    depth_m = None if frames.depth_m is None else frames.depth_m[frame]
    tools = np.array([poses[frame, :3, 3] for poses in marks.tcp.values()]).reshape(-1, 3)
    wanted = np.array([point.positions[frame] for point in marks.points]).reshape(-1, 3)
    pixels, depths = project(camera, T, np.concatenate([tools, wanted]))
    places = [
        {"uv": rounded(pixel), "depth_m": round(float(depth), 4), "visible": seen}
        for pixel, depth, seen in zip(pixels, depths, visible(camera, pixels, depths, depth_m), strict=True)
    ]
    if frames.instance is not None:
        _show_inner_points(marks, places[len(marks.tcp) :], frames.instance[frame], named)
    return {
        "boxes": [
            {
                "name": named[found.instance_id].name,
                "category": named[found.instance_id].category,
                "instance_id": found.instance_id,
                "box": list(found.box),
                "pixels": found.pixels,
            }
            for found in (boxes(frames.instance[frame]) if frames.instance is not None else [])
            if found.instance_id in named
        ],
        "tcp": dict(zip(marks.tcp, places, strict=False)),
        "points": [
            {"name": point.name, "kind": point.kind, "object": point.target, "reached_at": point.row, **place}
            for point, place in zip(marks.points, places[len(marks.tcp) :], strict=True)
        ],
    }


def _show_inner_points(
    marks: EpisodeMarks, places: list[dict[str, Any]], instance: U16, named: Mapping[int, Label]
) -> None:
    """A point inside an object is behind the object's own surface, and yet one can point at it."""
    ids = {label.name: number for number, label in named.items()}
    for point, place in zip(marks.points, places, strict=True):
        if place["visible"] is False and place["uv"] is not None and point.target in ids:
            u, v = (int(coordinate) for coordinate in place["uv"])
            if 0 <= v < instance.shape[0] and 0 <= u < instance.shape[1]:
                place["visible"] = bool(instance[v, u] == ids[point.target])
