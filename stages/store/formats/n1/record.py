"""`episode.json` of InternData-N1's pieces."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nimbusd.stages.store.record_model import PieceRecord, Real


class N1Record(PieceRecord):
    """`episode.json` with the heights from which the point cloud is coloured: of floors, and of obstacles above."""

    floors_m: Annotated[list[Real], Field(min_length=1)]
    obstacles_m: Annotated[list[Real], Field(min_length=2, max_length=2)]
