"""Mistakes in a job, each a place and a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nimbusd.stages.errors import NimbusError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. where: `job.yaml:14`, or `--set KEY` for a value given on the command line."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class JobError(NimbusError):
    """A job file cannot be used. problems: all that was found, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
