"""A check that an episode's pictures show the motion that its states tell of.

A renderer that shows a scene as it stood at the start makes equal frames, which all other checks find in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nimbusd.stages.store.beneath import file_beneath
from nimbusd.stages.store.encode import decode_image, decode_video
from nimbusd.stages.store.formats.lerobot.content import DEPTH_PREFIX, INSTANCE_PREFIX, SEMANTIC_PREFIX
from nimbusd.stages.store.formats.lerobot.tree import LerobotTree
from nimbusd.stages.types import F64, I32

MOVED = 0.2
"""Radians or metres: joints and objects that move by less may change no pixel, and are not looked at."""

_JOINTS = re.compile(r"(^|[._])joints?([._]|$)")
_OBJECTS = re.compile(r"(^|[._])objects?[._]")
_NO_POSITION = re.compile(r"vel|acc|effort|force|torque|current|command")
_LOOKS = 4
"""Pairs of frames that are compared, at most."""

_DEPTH_COUNTS = 30
"""3 mm: depths that differ by less are equal."""

_RGB_LEVELS, _RGB_PIXELS = 24, 8
"""Images differ where that number of pixels differs by that many levels: lossy videos of still pictures vary a bit."""


@dataclass(frozen=True)
class _Motion:
    """The largest change of a column: from frame 0 to frame `row`, by `by`. thing: whose joint it is, if it says so."""

    column: str
    row: int
    by: float
    thing: str = ""


def motion(tree: LerobotTree) -> Iterator[str]:
    """Episodes in which joints or objects move by more than MOVED, though no mask, depth or image of a camera changes.

    Compared are the first frame and those in which a column is farthest from it, so that motion that comes back to
    its start counts. Nothing is said of episodes whose masks show no robot at all, or that have no pictures.
    """
    for episode in range(tree.episodes):
        table = tree.table(episode)
        moved = sorted(_motions(tree, table), key=lambda found: -found.by)
        rows = list(dict.fromkeys(found.row for found in moved))[:_LOOKS]
        if not rows:
            continue
        pictures = _Pictures(tree, episode, table)
        if pictures.kinds and pictures.shows_what_moves(moved, [0, *rows]) and not pictures.change(rows):
            most = moved[0]
            yield (
                f"episode {episode}: {most.column} changes by {most.by:.2f} from frame 0 to frame {most.row}, but "
                f"{' and '.join(pictures.kinds)} of {', '.join(pictures.cameras)} stay the same: the renderer did not "
                "show what moved"
            )


def _motions(tree: LerobotTree, table: pa.Table) -> Iterator[_Motion]:
    for name in table.column_names:
        entry = tree.features.get(name, {})
        values = _positions(name, entry, table) if entry.get("dtype") in ("float32", "float64") else None
        if values is None or len(values) < 2:
            continue
        change = np.abs(values - values[:1]).max(axis=1)
        row = int(np.argmax(change))
        if change[row] > MOVED:
            yield _Motion(name, row, float(change[row]), name.removeprefix("observation.joint."))


def _positions(name: str, entry: Mapping[str, Any], table: pa.Table) -> F64 | None:
    """(T, n) positions of joints and objects in a column of states, None where it has none."""
    if name.startswith(("action", "master_actions")) or _NO_POSITION.search(name):
        return None
    words = [str(word) for word in entry.get("names") or ()] if isinstance(entry.get("names"), list) else []
    named = [place for place, word in enumerate(words) if _JOINTS.search(word) and not _NO_POSITION.search(word)]
    if not (_JOINTS.search(name) or _OBJECTS.search(name) or named):
        return None
    values = np.array(table.column(name).to_pylist(), np.float64).reshape(table.num_rows, -1)
    if _JOINTS.search(name):
        return values
    return values[:, named] if named else values if values.shape[1] >= 3 else None


class _Pictures:
    """An episode's pictures, read as they are asked for."""

    def __init__(self, tree: LerobotTree, episode: int, table: pa.Table) -> None:
        self._tree, self._episode, self._table = tree, episode, table
        meta = tree.meta[episode]
        self._labels = tree.conventions["segmentation"]["label_tables"].get(meta["label_table"], [])
        path = tree.annotations_path(episode)
        self._annotations = path.relative_to(tree.root).as_posix() if path.is_file() else ""
        self._stored = set(_column_names(tree, self._annotations)) if self._annotations else set()
        self.cameras = [camera for camera in meta["cameras"] if self._kinds_of(camera)]

    @property
    def kinds(self) -> list[str]:
        """In words, what there is to compare."""
        return sorted({word for camera in self.cameras for word in self._kinds_of(camera)})

    def shows_what_moves(self, moved: Iterable[_Motion], rows: list[int]) -> bool:
        """False where masks say that neither the robot nor a thing that moves is in any of these frames."""
        things = {motion.thing for motion in moved}
        ids = [row["instance_id"] for row in self._labels if row["category"] == "robot" or row["name"] in things]
        masks = [INSTANCE_PREFIX + camera for camera in self.cameras if INSTANCE_PREFIX + camera in self._stored]
        if not ids or not masks:
            return True
        return any(np.isin(frame, ids).any() for column in masks for frame in self._frames(column, rows))

    def change(self, rows: list[int]) -> bool:
        """True if anything differs between frame 0 and one of `rows`. Pictures that cost least to read come first."""
        for prefix, most in ((INSTANCE_PREFIX, 0), (SEMANTIC_PREFIX, 0), (DEPTH_PREFIX, _DEPTH_COUNTS)):
            for camera in self.cameras:
                if prefix + camera in self._stored:
                    first, *others = (frame.astype(np.int32) for frame in self._frames(prefix + camera, [0, *rows]))
                    if any((np.abs(other - first) > most).any() for other in others):
                        return True
        return any(self._images_change(camera, rows) for camera in self.cameras)

    def _images_change(self, camera: str, rows: list[int]) -> bool:
        if not self._has_images(camera):
            return False
        first, *others = (self._image(camera, row) for row in [0, *rows])
        return any(np.count_nonzero(np.abs(other - first).max(axis=2) > _RGB_LEVELS) >= _RGB_PIXELS for other in others)

    def _kinds_of(self, camera: str) -> list[str]:
        found = [
            word
            for word, prefixes in (("masks", (INSTANCE_PREFIX, SEMANTIC_PREFIX)), ("depth", (DEPTH_PREFIX,)))
            if any(prefix + camera in self._stored for prefix in prefixes)
        ]
        return [*found, "images"] if self._has_images(camera) else found

    def _has_images(self, camera: str) -> bool:
        return self._tree.image_key(camera) in self._tree.features

    def _frames(self, column: str, rows: list[int]) -> list[npt.NDArray[np.generic]]:
        import pyarrow.parquet as pq

        path = file_beneath(self._tree.root, self._annotations)
        cells = pq.read_table(path, columns=[column], partitioning=None).column(column)
        return [decode_image(cells[row].as_py()["bytes"]) for row in rows]

    def _image(self, camera: str, row: int) -> I32:
        key = self._tree.image_key(camera)
        if key in self._table.column_names:
            return np.asarray(decode_image(self._table.column(key)[row].as_py()["bytes"]), np.int32)
        path, first = self._tree.video_place(key, self._episode)
        return np.asarray(decode_video(path, first + row, 1, self._tree.fps)[0], np.int32)


def _column_names(tree: LerobotTree, path: str) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(file_beneath(tree.root, path)).names)
