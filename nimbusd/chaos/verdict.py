"""The end of a chaos run in figures: what was injected, what was lost, how soon everything worked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nimbusd.chaos.inspection import Inspection
from nimbusd.chaos.plan import Kind
from nimbusd.chaos.recovery import Recoveries, spread


@dataclass(slots=True)
class JobFigures:
    """Sums over the jobs of a run: see Inspection."""

    jobs: int = 0
    not_complete: int = 0
    wanted: int = 0
    committed: int = 0
    lost: int = 0
    duplicated_in_ledger: int = 0
    duplicated_in_events: int = 0
    duplicated_on_disk: int = 0
    torn: int = 0
    leftover_pieces: int = 0
    other_state_columns: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, found: Inspection, complete: bool) -> None:
        """Count a job that has ended."""
        self.jobs += 1
        self.not_complete += not complete
        for name in ("wanted", "committed", *_MUST_BE_0):
            setattr(self, name, getattr(self, name) + getattr(found, name))
        self.faults += found.faults

    def wrong(self) -> dict[str, int]:
        """Figures that should be 0 and are not."""
        return {name: value for name in (*_MUST_BE_0, "not_complete") if (value := getattr(self, name))}


_MUST_BE_0 = (
    "lost",
    "duplicated_in_ledger",
    "duplicated_in_events",
    "duplicated_on_disk",
    "torn",
    "leftover_pieces",
    "other_state_columns",
)


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind of fault. recovered: of those injected; see `ChaosVerdict.not_over`."""

    kind: Kind
    injected: int
    recovered: int
    took_s: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class ChaosVerdict:
    """The result of a chaos run."""

    seed: int
    rows: tuple[KindRow, ...]
    figures: JobFigures
    looks: int
    """Looks at what was published and committed, one after every fault."""
    datasets: int
    """Looks that found a published dataset."""
    unreadable: tuple[str, ...]
    """Faults of those datasets."""
    wrong: tuple[str, ...]
    """Other findings, as sentences."""
    not_over: tuple[str, ...]
    """Faults after which nobody who was hit was seen at work again, not even in undisturbed jobs."""
    compared: bool
    """State columns were compared with those of an undisturbed run."""
    ended_themselves: int
    """See Injector."""
    orphans: int
    """See Injector."""
    elapsed_s: float
    interrupted: bool = False
    """The last job was given up."""

    @property
    def injected(self) -> int:
        """Faults of all kinds."""
        return sum(row.injected for row in self.rows)

    @property
    def recovered(self) -> int:
        """Faults of all kinds after which everything was seen to work again."""
        return sum(row.recovered for row in self.rows)

    @property
    def ok(self) -> bool:
        """Nothing was lost, duplicated, torn, left behind, or unreadable at any time; every wait had its reason."""
        return not self.figures.wrong() and not (self.figures.faults or self.unreadable or self.wrong)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        figures = self.figures
        return {
            "seed": self.seed,
            "injected": self.injected,
            "recovered": self.recovered,
            "kinds": {
                row.kind.value: {"injected": row.injected, "recovered": row.recovered, "took": row.took_s}
                for row in self.rows
            },
            "jobs": figures.jobs,
            "episodes_wanted": figures.wanted,
            "episodes_committed": figures.committed,
            **{name: getattr(figures, name) for name in (*_MUST_BE_0, "not_complete")},
            "looks": self.looks,
            "datasets_read": self.datasets,
            "unreadable": list(self.unreadable),
            "faults": figures.faults,
            "wrong": list(self.wrong),
            "not_over": list(self.not_over),
            "state_columns_compared": self.compared,
            "daemons_that_ended_themselves": self.ended_themselves,
            "orphaned_compute_workers": self.orphans,
            "elapsed_s": round(self.elapsed_s, 1),
            "interrupted": self.interrupted,
            "ok": self.ok,
        }


def rows_of(recoveries: Recoveries, kinds: tuple[Kind, ...]) -> tuple[KindRow, ...]:
    """One row for each kind."""
    return tuple(
        KindRow(
            kind,
            recoveries.hits.get(kind, 0),
            len(recoveries.took_s.get(kind, ())),
            spread(recoveries.took_s.get(kind, ())),
        )
        for kind in kinds
    )
