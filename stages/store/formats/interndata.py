"""What the InternData manipulation formats share: their settings, and how their datasets are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nimbusd.stages.store.formats.lerobot.settings import MediaArgs
from nimbusd.stages.store.formats.lerobot.v21 import build_v21
from nimbusd.stages.store.formats.lerobot.v30 import build_v30
from nimbusd.stages.store.outcome import build_by_outcome
from nimbusd.stages.store.publish import Extras, publish_pieces
from nimbusd.stages.store.record import SourcePiece
from nimbusd.stages.types import Piece


class InternDataArgs(MediaArgs):
    """How manipulation episodes are stored."""

    version: Literal["v2.1", "v3.0"] = Field(
        default="v3.0", description="LeRobot version: current LeRobot reads v3.0 alone, the releases are v2.1."
    )
    robot_type: str = Field(
        default="", description="`robot_type` of the dataset; empty: what the planner calls its robot."
    )
    keep_failures: bool = Field(
        default=False, description="Publish `success/` and `failed/` instead of successes alone."
    )

    def format(self, name: str) -> str:
        """The dataset's format in words, such as `interndata-a1-v3.0`."""
        return f"interndata-{name}-{self.version}"


def publish_outcomes(
    output: Path,
    pieces: list[Piece],
    job: dict[str, Any],
    args: InternDataArgs,
    name: str,
    extras: Extras,
    final: bool,
    beat: Callable[[], None],
    listed: Callable[[str], bool] = lambda key: False,
) -> Path:
    """Publish a dataset of LeRobot's layout with `extras`; two of them where failures are kept. See BaseWriter.

    listed: whether v2.1 has a feature of one number as a list of one.
    """

    def build(root: Path, stored: list[SourcePiece]) -> None:
        if args.version == "v3.0":
            build_v30(root, stored, job, args.sizes, final=final, extras=extras, beat=beat)
        else:
            build_v21(root, stored, job, extras, beat, listed)

    def build_all(root: Path, stored: list[SourcePiece]) -> None:
        if args.keep_failures:
            build_by_outcome(root, stored, build)
        else:
            build(root, stored)

    return publish_pieces(output, pieces, args.format(name), build_all, final=final, beat=beat)
