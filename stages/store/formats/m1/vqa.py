"""Questions and answers about the frames of an episode: kinds point, box, trace, affordance and plan.

They are asked at the first frame and at the start of each step, of every camera, and only where the answer is in the
image and its words can be told apart there. Coordinates are pixels (see `frame_labels`). Everything follows from the
labels, the wording too: which of several phrasings a question has depends on what is asked, and on nothing else.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.notes import SubTask
from nimbusd.stages.store.formats.m1.labels import EpisodeMarks
from nimbusd.stages.store.frame_labels import inner_point, inside, project, rounded
from nimbusd.stages.types import Camera, Observation, Sequence

KINDS = ("point", "box", "trace", "affordance", "plan")
FEWEST_PIXELS = 40
"""Objects that show less than this are not asked for."""
MOST_TRACE_POINTS = 10
LEAST_TRACE_PIXELS = 5
"""A step in which the tool moves less than this in the image has no trace to draw."""
PHRASINGS = {
    "point": (
        "Point to the {object}.",
        "Mark one point on the {object}.",
        "At which point of the image is the {object}?",
        "Give the pixel coordinates of a point on the {object}.",
    ),
    "box": (
        "Draw a box around the {object}.",
        "What is the bounding box of the {object}?",
        "Which box encloses all that can be seen of the {object}?",
        "Locate the {object} with a box.",
    ),
    "trace": (
        'Along which points of the image does the gripper move to "{step}"?',
        'Draw the way of the gripper through the image while it does this: "{step}".',
        'Which path will the gripper take in this image in order to "{step}"?',
    ),
    "affordance": (
        "Where should the gripper {verb} the {object}?",
        "Which point is a good one to {verb} the {object}?",
        "At which point of the image will the gripper {verb} the {object}?",
    ),
    "plan": (
        'What are the steps of the task "{task}"?',
        'Break the task "{task}" down into steps.',
        'The task is "{task}". What has to be done, in order?',
    ),
    "next": (
        'What is the next step of the task "{task}"?',
        'The task is "{task}". What should the robot do now?',
        'To carry out "{task}", what comes next?',
    ),
}
"""Kind → ways to ask; `next` is a plan question in the middle of the task."""
_GRIPPING = ("grasp", "handle", "press", "push")
_VERBS = {"grasp": "grasp", "handle": "take hold of", "press": "press", "push": "push"}
_COUNTED = re.compile("(first|second|third|fourth|fifth|sixth|seventh|eighth) ")


@dataclass(frozen=True, slots=True)
class Question:
    """One record. answer: in words; value: the same as numbers or a list of sentences. object: its name, or empty."""

    kind: str
    camera: str
    frame: int
    question: str
    answer: str
    value: Any
    object: str = ""


def questions(seq: Sequence, obs: Observation, marks: EpisodeMarks, lines: list[dict[str, Any]]) -> Iterator[Question]:
    """All that is asked of an episode, by frame, camera and kind. lines: of `label_lines`."""
    for frame in asked_frames(seq, marks):
        for position, camera in enumerate(seq.cameras):
            label = lines[frame]["cameras"][camera.name]
            yield from _objects(seq, obs, marks, camera, frame, label)
            yield from _affordance(marks, camera, frame, label)
            step = marks.step_at(frame)
            if step is not None and step.start == frame:
                yield from _trace(seq, marks, camera, step)
            if position == 0:
                yield from _plan(seq, marks, camera, frame)


def asked_frames(seq: Sequence, marks: EpisodeMarks) -> list[int]:
    """The first frame and the first of each step."""
    return sorted({0, *(step.start for step in marks.steps if 0 <= step.start < len(seq))})


def _objects(
    seq: Sequence, obs: Observation, marks: EpisodeMarks, camera: Camera, frame: int, label: Mapping[str, Any]
) -> Iterator[Question]:
    instance = obs.frames[camera.name].instance
    if instance is None:
        return
    for row in label["boxes"]:
        if row["name"] not in seq.T_world_object or row["pixels"] < FEWEST_PIXELS:
            continue
        word = marks.noun(row["name"])
        if _COUNTED.match(word):
            continue
        u, v = inner_point(instance[frame], row["instance_id"])
        question = _phrased("point", camera, frame, object=word)
        yield Question("point", camera.name, frame, question, f"({u:g}, {v:g})", [u, v], row["name"])
        corners = row["box"]
        question = _phrased("box", camera, frame, object=word)
        answer = f"[{', '.join(str(corner) for corner in corners)}]"
        yield Question("box", camera.name, frame, question, answer, corners, row["name"])


def _affordance(marks: EpisodeMarks, camera: Camera, frame: int, label: Mapping[str, Any]) -> Iterator[Question]:
    """Of each object the next point at which it will be touched."""
    asked: set[str] = set()
    for row in sorted(label["points"], key=lambda point: int(point["reached_at"])):
        if row["kind"] not in _GRIPPING or row["reached_at"] < frame or not row["object"] or row["object"] in asked:
            continue
        asked.add(row["object"])
        word = marks.noun(row["object"])
        if row["visible"] is False or row["uv"] is None or _COUNTED.match(word):
            continue
        question = _phrased("affordance", camera, frame, object=word, verb=_VERBS[row["kind"]])
        u, v = row["uv"]
        yield Question("affordance", camera.name, frame, question, f"({u:g}, {v:g})", [u, v], row["object"])


def _trace(seq: Sequence, marks: EpisodeMarks, camera: Camera, step: SubTask) -> Iterator[Question]:
    """The tool's way through the step as it would be drawn into the image of the step's first frame, if it moves."""
    positions = marks.trace(step)
    if positions is None or len(positions) < 2:
        return
    chosen = np.unique(np.linspace(0, len(positions) - 1, min(MOST_TRACE_POINTS, len(positions))).round().astype(int))
    T = np.asarray(seq.T_world_camera[camera.name])[step.start]
    pixels, _ = project(camera, T, positions[chosen])
    if not inside(camera, pixels).all() or np.abs(pixels - pixels[0]).max() < LEAST_TRACE_PIXELS:
        return
    value = [rounded(pixel, 1) for pixel in pixels]
    question = _phrased("trace", camera, step.start, step=_clause(step.instruction))
    yield Question("trace", camera.name, step.start, question, str(value), value)


def _plan(seq: Sequence, marks: EpisodeMarks, camera: Camera, frame: int) -> Iterator[Question]:
    steps = [step for step in marks.steps if step.instruction]
    if not steps:
        return
    task = seq.task.rstrip(".")
    if frame == 0:
        sentences = list(dict.fromkeys(_sentence(step.instruction) for step in steps))
        answer = " ".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences, start=1))
        yield Question("plan", camera.name, frame, _phrased("plan", camera, frame, task=task), answer, sentences)
        return
    step = marks.step_at(frame)
    if step is not None and step.instruction:
        answer = _sentence(step.instruction)
        yield Question("plan", camera.name, frame, _phrased("next", camera, frame, task=task), answer, [answer])


def _phrased(kind: str, camera: Camera, frame: int, **words: str) -> str:
    """One of the kind's phrasings, always the same one for the same camera, frame and words."""
    key = "|".join((kind, camera.name, str(frame), *words.values()))
    choices = PHRASINGS[kind]
    return choices[zlib.crc32(key.encode()) % len(choices)].format(**words)


def _sentence(instruction: str) -> str:
    """`lift the cube` as `Lift the cube.`"""
    text = instruction.strip()
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _clause(instruction: str) -> str:
    """`Lift the cube.` as `lift the cube`."""
    text = instruction.strip()
    return f"{text[:1].lower()}{text[1:].rstrip('.')}"
