"""LeRobot v3.0 as a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nimbusd.stages.store.formats.lerobot.format import LerobotFormat, number_as_number
from nimbusd.stages.store.formats.lerobot_v30.build import VERSION, build_v30
from nimbusd.stages.store.formats.lerobot_v30.tree import V30Tree
from nimbusd.stages.store.media import MediaArgs
from nimbusd.stages.store.publish import Extras, link_own_files
from nimbusd.stages.store.source_piece import SourcePiece


class LerobotV30(LerobotFormat):
    """Files of several episodes; the one that current LeRobot reads. It has single numbers as numbers alone."""

    name = "lerobot-v3.0"
    version = VERSION
    tree = V30Tree

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
        build_v30(root, sources, job, args.sizes, final=final, extras=extras, beat=beat)


LEROBOT_V30 = LerobotV30()
