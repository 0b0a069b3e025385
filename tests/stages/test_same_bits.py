"""Episodes made again in other ways have the same bits; all examples: `python -m tests.benchmarks.same_bits`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.same_bits import PREPARED, Way, compare, ways
from tests.support.slow import slow

pytestmark = pytest.mark.processes

TOY_PICTURES = [
    "pipeline.plan.args.cameras=[{name: front, hfov_rad: 1.3, width: 32, height: 24}]",
    "pipeline.render={component: 'tests.support.toy:ToyRenderer'}",
    "pipeline.store.args.media=image",
]


def test_a_drive_through_an_apartment_has_the_same_bits_with_memory_stirred_and_without_avx512(tmp_path: Path) -> None:
    first, _, stirred, hidden, _ = ways()
    both = Way("stirred and hidden", {**hidden.env, **stirred.env})
    _, row = compare("nav_mesh", 1, tmp_path, [first, both], TOY_PICTURES)
    assert row["differ"] == []


@slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PREPARED)
def test_every_example_has_the_same_bits_in_every_way(tmp_path: Path, name: str) -> None:
    assert not [row for row in compare(name, 1, tmp_path) if row["differ"] and not row["control"]]
