"""The base of the InternData manipulation formats: settings, and LeRobot's datasets with more files beside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.formats.base import DatasetFormat
from nimbusd.stages.store.formats.lerobot.format import LerobotFormat
from nimbusd.stages.store.media import MediaArgs, robot_type_of
from nimbusd.stages.store.outcome import build_by_outcome
from nimbusd.stages.store.publish import Tree
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.stored_tree import StoredTree
from nimbusd.stages.store.writers.base import DatasetWriter
from nimbusd.stages.types import Observation, Sequence


class InternDataArgs(MediaArgs):
    """Arguments of the writers of manipulation episodes."""

    version: Literal["v2.1", "v3.0"] = Field(
        default="v3.0", description="LeRobot version: current LeRobot reads v3.0 alone, the releases are v2.1."
    )
    robot_type: str = Field(
        default="", description="`robot_type` of the dataset; empty: what the planner calls its robot."
    )
    keep_failures: bool = Field(
        default=False, description="Publish `success/` and `failed/` instead of successes alone."
    )

    def robot(self, seq: Sequence) -> str:
        return self.robot_type or robot_type_of(seq)


A = TypeVar("A", bound=InternDataArgs)


class InternDataFormat(DatasetFormat[A, StoredTree]):
    """A dataset of LeRobot's layout with `extras`; two of them where failures are kept. LeRobot's formats open it."""

    def __init__(self, name: str, lerobot: LerobotFormat) -> None:
        """name: in the table. lerobot: the version of LeRobot that it is published as."""
        self.name = name
        self.lerobot = lerobot

    @abstractmethod
    def extras(self, tree: Tree, sources: list[SourcePiece]) -> Mapping[str, Any]:
        """Add the files beside LeRobot's own. Returns what `meta/conventions.json` says about them."""

    def listed(self, key: str) -> bool:
        """True for features of one number that v2.1 has as lists of one."""
        return False

    def build(
        self,
        root: Path,
        sources: list[SourcePiece],
        job: Mapping[str, Any],
        args: A,
        *,
        final: bool,
        beat: Callable[[], None],
    ) -> None:
        def build_one(root: Path, sources: list[SourcePiece]) -> None:
            self.lerobot.build_with(
                root, sources, job, args, final=final, beat=beat, extras=self.extras, listed=self.listed
            )

        if args.keep_failures:
            build_by_outcome(root, sources, build_one)
        else:
            build_one(root, sources)


class InternDataWriter(DatasetWriter[A]):
    """Stores what a robot did. kind: of InternData, the word in the names of its formats."""

    kind: ClassVar[str]

    @classmethod
    def format_name(cls, args: InternDataArgs) -> str:
        return f"interndata-{cls.kind}-{args.version}"


def with_camera_names(seq: Sequence, obs: Observation, names: Mapping[str, str]) -> tuple[Sequence, Observation]:
    """The same with cameras called as `names` says. Raises StoreError if two would have one name."""
    new = {camera.name: names.get(camera.name, camera.name) for camera in seq.cameras}
    if len(set(new.values())) < len(new):
        twice = next(name for name in new.values() if list(new.values()).count(name) > 1)
        raise StoreError(f"two cameras would both be called {twice!r}; rename them with the writer's `cameras`")
    cameras = tuple(replace(camera, name=new[camera.name]) for camera in seq.cameras)
    T_world_camera = {new[name]: T for name, T in seq.T_world_camera.items()}
    T_base_camera = {new[name]: T for name, T in seq.T_base_camera.items()}
    frames = {new.get(name, name): seen for name, seen in obs.frames.items()}
    renamed = replace(seq, cameras=cameras, T_world_camera=T_world_camera, T_base_camera=T_base_camera)
    return renamed, replace(obs, frames=frames)
