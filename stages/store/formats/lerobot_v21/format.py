"""LeRobot v2.1 as a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nimbusd.stages.store.formats.lerobot.format import LerobotFormat, number_as_number
from nimbusd.stages.store.formats.lerobot_v21.build import VERSION, build_v21
from nimbusd.stages.store.formats.lerobot_v21.tree import V21Tree
from nimbusd.stages.store.media import MediaArgs
from nimbusd.stages.store.publish import Extras, link_own_files
from nimbusd.stages.store.source_piece import SourcePiece


class LerobotV21(LerobotFormat):
    """Files of one episode each; the one that the InternData releases, GR00T's loaders and InternVLA-M1's have."""

    name = "lerobot-v2.1"
    version = VERSION
    tree = V21Tree

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
        build_v21(root, sources, job, extras, beat, listed)


LEROBOT_V21 = LerobotV21()
