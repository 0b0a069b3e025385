"""The contract tester's report on a component: one finding per line of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ContractVerdict(StrEnum):
    """The outcome of a line of the contract."""

    HOLDS = "holds"
    FAILS = "fails"
    UNTRIED = "untried"
    """It could not be tried here: a backend is missing, or an earlier line failed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the contract, as it came out. line: its name, see LINES. evidence: what was seen, in a sentence."""

    line: str
    verdict: ContractVerdict
    evidence: str


LINES: Mapping[str, str] = {
    "class": "it is found by its name and extends a base class, with every method that this asks for",
    "arguments": "its models, version and requirements are declared; its arguments fit and survive JSON",
    "start": "it is made and opened on this machine",
    "results": "what it returns has the types, shapes, dtypes and ids that its base class promises",
    "inputs": "what it is given stays as it was",
    "same bytes": "two processes make the same bytes of the same seed",
    "order": "an episode does not depend on those that were made before it",
    "attempts": "a later attempt at an episode gets a piece of its own",
    "publish": "the same pieces give the same dataset, and stay whole",
    "kill": "a SIGKILL leaves nothing torn, and nothing running",
    "growth": "memory, file descriptors, threads and processes do not grow from call to call",
    "time": "its calls come to an end",
    "beats": "it says often enough that it works",
    "end": "it closes, and leaves no threads, processes or files",
}
"""The lines of the contract in their order → what each says. `attempts` and `publish` are asked of writers alone."""
WRITER_LINES = ("attempts", "publish")


@dataclass(frozen=True, slots=True)
class ContractReport:
    """All findings on a component. stage: load, randomize, plan, render, store or workflow; empty if it is none."""

    component: str
    stage: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The lines that do not hold."""
        return tuple(finding for finding in self.findings if finding.verdict is ContractVerdict.FAILS)

    @property
    def untried(self) -> tuple[Finding, ...]:
        """The lines that could not be tried here."""
        return tuple(finding for finding in self.findings if finding.verdict is ContractVerdict.UNTRIED)

    def __getitem__(self, line: str) -> Finding:
        """The finding on a line. Raises KeyError for one that is not asked of this component."""
        for finding in self.findings:
            if finding.line == line:
                return finding
        raise KeyError(line)

    def __str__(self) -> str:
        """A line of text per finding, for assertion messages."""
        rows = [f"{finding.verdict:8} {finding.line}: {finding.evidence}" for finding in self.findings]
        return "\n".join([f"{self.component} ({self.stage or 'no component'})", *rows])

    def to_json(self) -> dict[str, Any]:
        """The object that `nimbusctl check --component … --json` prints."""
        rows = [{"line": f.line, "verdict": f.verdict.value, "evidence": f.evidence} for f in self.findings]
        return {"component": self.component, "stage": self.stage, "ok": not self.failed, "findings": rows}
