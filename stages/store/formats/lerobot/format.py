"""`LerobotFormat`: the base of LeRobot's versions, which have equal pieces and differ in the datasets made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from nimbusd.stages.store.formats.base import DatasetFormat
from nimbusd.stages.store.formats.lerobot import checks
from nimbusd.stages.store.formats.lerobot.content import write_lerobot
from nimbusd.stages.store.formats.lerobot.tree import LerobotTree, lerobot_folders, read_info
from nimbusd.stages.store.media import MediaArgs
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.publish import Extras, link_own_files
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.verify.motion import motion
from nimbusd.stages.types import Episode, Observation, Sequence


def number_as_number(_: str) -> bool:
    """No feature of one number is a list of one."""
    return False


class LerobotFormat(DatasetFormat[MediaArgs, LerobotTree]):
    """A version of LeRobot's format. version: `codebase_version` of info.json. tree: a dataset of it on disk."""

    version: ClassVar[str]
    tree: ClassVar[type[LerobotTree]]

    def write(
        self,
        draft: PieceDraft,
        seq: Sequence,
        obs: Observation,
        episode: Episode,
        args: MediaArgs,
        beat: Callable[[], None],
    ) -> None:
        write_lerobot(draft, seq, obs, episode, self.name, args.content(args.robot(seq)), beat)

    def build(
        self,
        root: Path,
        sources: list[SourcePiece],
        job: Mapping[str, Any],
        args: MediaArgs,
        *,
        final: bool,
        beat: Callable[[], None],
    ) -> None:
        self.build_with(root, sources, job, args, final=final, beat=beat)

    @abstractmethod
    def build_with(
        self,
        root: Path,
        sources: list[SourcePiece],
        job: Mapping[str, Any],
        args: MediaArgs,
        *,
        final: bool,
        beat: Callable[[], None],
        extras: Extras = link_own_files,
        listed: Callable[[str], bool] = number_as_number,
    ) -> None:
        """See `build`, with what another format adds to LeRobot's files.

        extras: adds its files. listed: true for features of one number whose loader wants a list of one.
        """

    def trees(self, root: Path) -> list[LerobotTree]:
        folders = lerobot_folders(root)
        if not folders or read_info(folders[0])["codebase_version"] != self.version:
            return []
        return [self.tree(folder) for folder in folders]

    def checks(self, tree: LerobotTree) -> Mapping[str, Iterator[str]]:
        return {
            "data": checks.data(tree),
            "shapes": checks.shapes(tree),
            "videos": checks.videos(tree),
            "statistics": checks.statistics(tree),
            "annotations": checks.annotation_rows(tree),
            "motion": motion(tree),
        }
