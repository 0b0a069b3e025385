"""An event that must never happen."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold. rule: its number in the architecture: I1 to I5, I8 or I11."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
