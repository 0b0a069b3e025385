"""Notes about an episode, in types: what planners and workflows say in plain values, and others read.

`Sequence.notes` and an episode's metadata hold JSON values, and anybody may add more. `Notes` reads those that mean
something here, each when it is asked for: a word that no format of the job reads may mean what its planner likes.
`described()` gives the JSON values back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from nimbusd.stages.errors import ComponentError

RESULT = "result"
SUB_TASKS = "sub_tasks"
KEY_POINTS = "keypoints"
KEY_FRAMES = "key_frames"
NOUNS = "nouns"
SIZES = "sizes_m"
ROBOT = "robot"

T = TypeVar("T")
XYZ = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an attempt. reason: of a failure, a word that statistics group by. detail: the same in words."""

    success: bool = True
    reason: str | None = None
    detail: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any] | None) -> Result:
        """The result in a note; success where there is none. Raises ComponentError for anything else."""
        if value is None:
            return cls()
        if not isinstance(value, Mapping) or not isinstance(value.get("success"), bool):
            raise ComponentError("notes['result'] must be {'success': bool, 'reason': word}")
        reason = value.get("reason")
        return cls(value["success"], None if reason is None else str(reason), str(value.get("detail") or ""))

    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = {"success": self.success, "reason": self.reason}
        return found if self.success else {**found, "detail": self.detail}


SUCCESS = Result()


@dataclass(frozen=True, slots=True)
class SubTask:
    """A part of an episode with an instruction of its own: frames start … stop - 1. arm, skill: empty where unsaid."""

    start: int
    stop: int
    instruction: str
    arm: str = ""
    skill: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> SubTask:
        return cls(
            int(value["start"]),
            int(value["stop"]),
            str(value["instruction"]),
            str(value.get("arm", "")),
            str(value.get("skill", "")),
        )

    def described(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "stop": self.stop,
            "instruction": self.instruction,
            "skill": self.skill,
            "arm": self.arm,
        }


@dataclass(frozen=True, slots=True)
class KeyPointNote:
    """A point worth pointing at, which the robot reaches at frame `row`.

    kind: `grasp`, `place`, `press`, `push`, `handle`. frame: the object that it moves with, empty for the world.
    position: metres in that frame. approach: unit vector of the tool there. width_m: between the pads.
    """

    name: str
    kind: str
    frame: str
    position: XYZ
    row: int
    arm: str = ""
    approach: XYZ = (0.0, 0.0, -1.0)
    width_m: float = 0.0

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> KeyPointNote:
        return cls(
            str(value["name"]),
            str(value["kind"]),
            str(value.get("frame", "")),
            _xyz(value["position"]),
            int(value["row"]),
            str(value.get("arm", "")),
            _xyz(value.get("approach", (0.0, 0.0, -1.0))),
            float(value.get("width_m", 0.0)),
        )

    def described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "frame": self.frame,
            "position": list(self.position),
            "approach": list(self.approach),
            "width_m": self.width_m,
            "row": self.row,
            "arm": self.arm,
        }


class Notes:
    """The notes of a sequence, or of an episode's metadata: values by key.

    Each attribute raises ComponentError, which names the key, for a value that is not of its form.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    @cached_property
    def result(self) -> Result:
        """The outcome of the attempt; a success where nothing is said."""
        return Result.of(self.values.get(RESULT))

    @cached_property
    def sub_tasks(self) -> tuple[SubTask, ...]:
        """The parts of the episode; none where nothing is said."""
        return self._read(SUB_TASKS, lambda value: tuple(SubTask.of(part) for part in value), ())

    @cached_property
    def key_points(self) -> tuple[KeyPointNote, ...]:
        """Points that the robot reaches."""
        return self._read(KEY_POINTS, lambda value: tuple(KeyPointNote.of(point) for point in value), ())

    @cached_property
    def nouns(self) -> Mapping[str, str]:
        """An object's name → the noun that instructions have for it."""
        return self._read(NOUNS, lambda value: {str(name): str(noun) for name, noun in value.items()}, {})

    @cached_property
    def sizes_m(self) -> Mapping[str, XYZ]:
        """An object's name → the edges of its bounding box, whose middle is the object's origin."""
        return self._read(SIZES, lambda value: {str(name): _xyz(size) for name, size in value.items()}, {})

    @cached_property
    def robot_type(self) -> str:
        """The robot's name in datasets; empty where nothing is said."""
        return self._read(ROBOT, lambda value: str(value.get("type") or ""), "")

    def _read(self, key: str, parse: Callable[[Any], T], default: T) -> T:
        value = self.values.get(key)
        if not value:
            return default
        try:
            return parse(value)
        except KeyError as error:
            raise ComponentError(f"notes[{key!r}]: a part of it has no {error}; {_LOOK}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ComponentError(f"notes[{key!r}] cannot be read: {error}; {_LOOK}") from error


_LOOK = "docs/workflows.md has the notes that are read, and their form"


def _xyz(value: Any) -> XYZ:
    x, y, z = (float(number) for number in value)
    return x, y, z
