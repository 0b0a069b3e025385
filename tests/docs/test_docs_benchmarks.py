"""Every program that docs/benchmarks.md names exists, and every one that README.md names is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMAND = re.compile(r"python -m tests\.benchmarks\.(\w+)((?: --[\w-]+)*)")
TEXT = (REPOSITORY / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize("name", sorted({name for name, _ in COMMAND.findall(TEXT)} - {"NAME"}))
def test_every_benchmark_that_is_named_is_there(name: str) -> None:
    assert (REPOSITORY / "tests" / "benchmarks" / f"{name}.py").is_file()


def test_what_readme_says_was_measured_is_told_in_full_here() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    assert {name for name, _ in COMMAND.findall(readme)} <= {name for name, _ in COMMAND.findall(TEXT)}
