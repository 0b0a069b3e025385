"""All names in docs/reliability.md exist: tests, benchmarks and commands."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from nimbusd.cli import cli

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", TEXT)))


@cache
def functions_in(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 40
    missing = [f"{file}::{name}" for file, name in NAMED if name not in functions_in(next(TESTS.rglob(file)))]
    assert not missing


def test_every_row_of_the_faults_names_a_test_or_says_why_not() -> None:
    rows = re.search(r"## Faults\n.*?\n\|---.*?\n(.*?)\n\n", TEXT, re.DOTALL)
    assert rows is not None
    for row in rows[1].splitlines():
        _, fault, what, tests, _ = re.split(r"(?<!\\)\|", row)
        assert "test_" in tests or "yet" in what, fault


@pytest.mark.parametrize("benchmark", sorted(set(re.findall(r"python -m tests\.benchmarks\.(\w+)", TEXT))))
def test_every_benchmark_that_is_named_exists(benchmark: str) -> None:
    assert (TESTS / "benchmarks" / f"{benchmark}.py").is_file()


def test_every_command_that_is_named_exists() -> None:
    assert isinstance(cli, click.Group)
    context = click.Context(cli)
    for command in set(re.findall(r"`nimbusctl (\w+)", TEXT)):
        assert cli.get_command(context, command) is not None, command
