"""Hostile nodes and clients beside honest ones: the short form of `python -m tests.benchmarks.hostile`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimbusd.chaos.lies import LIES
from tests.benchmarks.hostile import attack
from tests.support.slow import slow


@slow
@pytest.mark.processes
@pytest.mark.timeout(600)
def test_honest_jobs_complete_beside_hostile_nodes_and_clients_and_the_master_lives(tmp_path: Path) -> None:
    verdict = attack(15.0, 1, tmp_path, 8)
    assert verdict.faults == ()
    assert verdict.honest_jobs >= 1
    assert verdict.refused_pieces >= len(LIES) // 2
    assert verdict.counters["malformed"] > 100
    assert verdict.done["bad job"] > 0
