"""Failures of attempts at episodes: one value, from the compute worker to the ledger and the table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum

from nimbusd.transport.messages.bounds import (
    MOST_DETAIL,
    MOST_EVIDENCE,
    MOST_REASON,
    Evidence,
    Reason,
    Sentence,
    plain_line,
    plain_text,
)

_FINAL = frozenset({"asset_error", "component_error", "pickling_error"})
_BLAMELESS = frozenset({"disk_full", "storage_error", "output_gone"})


class FailureKind(Enum):
    """The consequence of a failure for its episode."""

    PLANNING = "planning"
    """There is no plan. That is a result: it is counted by its reason, and not tried again."""
    FINAL = "final"
    """Trying again cannot change it: the episode is quarantined."""
    BLAMELESS = "blameless"
    """Not the episode's doing (a full disk): it stays pending, is not charged, and the job pauses."""
    COUNTED = "counted"
    """It costs the episode one of the job's attempts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an attempt came to nothing, or a compute worker's process ended."""

    stage: Reason
    """The stage that it happened in; empty if that cannot be told."""
    reason: Reason
    """A snake_case word that statistics group by."""
    detail: Sentence
    """A sentence about what went wrong."""
    evidence: Evidence = ""
    """Traceback, stack or stderr, for the person who looks into it."""
    kind: FailureKind = FailureKind.COUNTED

    def plain(self) -> Failure:
        """The failure with texts within their bounds, and without control characters that could steer a terminal."""
        return Failure(
            plain_line(self.stage, MOST_REASON),
            plain_line(self.reason, MOST_REASON),
            plain_text(self.detail, MOST_DETAIL),
            plain_text(self.evidence, MOST_EVIDENCE),
            self.kind,
        )

    def in_stage(self, stage: str) -> Failure:
        """The same failure, seen from an episode that was in `stage`."""
        return dataclasses.replace(self, stage=stage)


def kind_of(reason: str, *, planning: bool = False) -> FailureKind:
    """The kind of a failure by its reason. planning: a planner said that there is no plan."""
    if reason in _BLAMELESS:
        return FailureKind.BLAMELESS
    if planning:
        return FailureKind.PLANNING
    return FailureKind.FINAL if reason in _FINAL else FailureKind.COUNTED
