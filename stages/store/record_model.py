"""The shape of `episode.json`, whoever wrote it: what publishing needs, with its limits."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from nimbusd.stages.store.beneath import check_path
from nimbusd.stages.store.made_with import packages_hash
from nimbusd.stages.store.stats import NEEDED, stats_from_json

_Text = Annotated[str, Field(max_length=100_000)]
_Name = Annotated[str, Field(min_length=1, max_length=500)]
_Whole = Annotated[int, Field(ge=0, le=2**53)]
Real = Annotated[float, Field(allow_inf_nan=False)]


class _Model(BaseModel):
    """Types are not bent; what is said beyond what publishing needs is kept as it is."""

    model_config = ConfigDict(strict=True, extra="ignore")


class FeatureFacts(_Model):
    dtype: Annotated[str, StringConstraints(pattern=r"^(video|image|bool|u?int(8|16|32|64)|float(16|32|64))$")]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=2**31)]], Field(min_length=1, max_length=4)]
    names: list[_Text] | None = None

    def stats_shape(self) -> tuple[int, ...]:
        """Of each of its statistics but `count`."""
        return (3, 1, 1) if self.dtype in ("video", "image") else tuple(self.shape)


class SceneFacts(_Model):
    id: _Name
    variant: _Whole
    provenance: dict[str, Any] = Field(default_factory=dict)


class SubTaskFact(_Model):
    instruction: _Text
    start: int
    stop: int


class NotesFact(_Model):
    sub_tasks: list[SubTaskFact] | None = None


class ResultFact(_Model):
    success: bool


class Facts(_Model):
    schema_version: _Text
    episode_id: _Text
    job: _Name
    scene: SceneFacts
    index_in_scene: _Whole
    task: _Text
    robot: _Text
    result: ResultFact
    notes: NotesFact
    cameras: dict[_Name, dict[str, Any]]
    label_table: _Text


_Packages = Annotated[dict[_Name, _Name], Field(max_length=10_000)]


class EnvironmentFacts(_Model):
    hash: _Text = ""
    packages: _Packages | None = None
    before: _Packages | None = None
    now: _Packages | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.packages and packages_hash(self.packages) != self.hash:
            raise ValueError("its hash is not that of its packages")
        return self


class RunFacts(_Model):
    environment: EnvironmentFacts | None = None


class PieceRecord(_Model):
    """The shape of `episode.json`."""

    format: _Name
    length: Annotated[int, Field(ge=1, le=2**30)]
    fps: Annotated[float, Field(gt=0, le=1e6)]
    features: Annotated[dict[_Name, FeatureFacts], Field(max_length=10_000)]
    videos: dict[_Name, dict[str, Any]]
    stats: dict[_Name, dict[str, Any]]
    labels: list[dict[str, Any]]
    facts: Facts
    run: RunFacts

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in (*self.facts.cameras, *self.videos):
            if "/" in check_path(name, "episode.json"):
                raise ValueError(f"{name!r} cannot be a part of a path")
        for key, feature in self.features.items():
            stats = stats_from_json(self.stats.get(key, {}))
            if missing := NEEDED - stats.keys():
                raise ValueError(f"feature {key!r} has no statistic {min(missing)!r}")
            for name, value in stats.items():
                wanted = (1,) if name == "count" else feature.stats_shape()
                if value.shape != wanted or not np.isfinite(value).all():
                    raise ValueError(f"statistic {name!r} of feature {key!r} is not {wanted} finite numbers")
            if not 0 < stats["count"][0] <= 2**53:
                raise ValueError(f"feature {key!r} has statistics of {stats['count'][0]} values")
        return self
