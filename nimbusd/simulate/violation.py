"""An event that must never happen."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold. rule: its number in the architecture, I1 … I8, I11."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
