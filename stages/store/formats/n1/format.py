"""InternData-N1 as a format: what NavWriter's arguments say beyond frames is for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nimbusd.stages.store.encode import encoder_refusals
from nimbusd.stages.store.formats.base import DatasetFormat
from nimbusd.stages.store.formats.lerobot_v21 import LEROBOT_V21
from nimbusd.stages.store.formats.n1.checks import frames_and_mounting
from nimbusd.stages.store.formats.n1.record import N1Record
from nimbusd.stages.store.formats.n1.tree import N1Tree
from nimbusd.stages.store.formats.n1.trees import FORMAT, build_n1, write_n1
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.writers.nav import NavWriterArgs
from nimbusd.stages.types import Episode, Observation, Sequence


class InternDataN1(DatasetFormat[NavWriterArgs, N1Tree]):
    """One LeRobot v2.1 tree per scene, in `<job>_<camera>/<scene>`."""

    name = FORMAT
    args_model = NavWriterArgs
    record_model = N1Record

    def write(
        self,
        draft: PieceDraft,
        seq: Sequence,
        obs: Observation,
        episode: Episode,
        args: NavWriterArgs,
        beat: Callable[[], None],
    ) -> None:
        obstacles_m = (args.obstacle_low_m, args.obstacle_high_m)
        write_n1(draft, seq, obs, episode, args.content(args.robot(seq)), args.jpeg_quality, obstacles_m, beat)

    def build(
        self,
        root: Path,
        sources: list[SourcePiece],
        job: Mapping[str, Any],
        args: NavWriterArgs,
        *,
        final: bool,
        beat: Callable[[], None],
    ) -> None:
        build_n1(root, sources, job, beat)

    def trees(self, root: Path) -> list[N1Tree]:
        return [N1Tree(path.parent.parent) for path in sorted(root.glob("*/*/meta/info.json"))]

    def checks(self, tree: N1Tree) -> Mapping[str, Iterator[str]]:
        return {"n1": frames_and_mounting(tree), **LEROBOT_V21.checks(tree)}

    def refused_sizes(self, sizes: dict[str, tuple[int, int]], args: NavWriterArgs) -> list[str]:
        return encoder_refusals(sizes, args.content("").video)  # there are videos to look at, whatever `media` says


INTERNDATA_N1 = InternDataN1()
