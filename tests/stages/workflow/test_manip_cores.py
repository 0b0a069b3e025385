"""The same manipulation job in slots with other numbers of cores: the same numbers, to the last bit."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import yaml

from nimbusd import events
from nimbusd.chaos.inspection import equal_columns, published_columns
from nimbusd.embedded import JobRun
from nimbusd.job import read_job
from nimbusd.node.slots import Slot
from tests.support.manip_worlds import require_simulation
from tests.support.slow import slow

require_simulation()
pytestmark = [pytest.mark.mujoco, pytest.mark.processes]

PICK_PLACE = Path(__file__).parents[3] / "examples" / "manipulation" / "pick_place.yaml"


def made(output: Path, slots: tuple[Slot, ...]) -> Path:
    """Plans of two layouts, without pictures."""
    job = {
        "name": "cores",
        "seed": 17,
        "scenes": [{"name": "relation", "cfg_path": str(PICK_PLACE)}],
        "episodes_per_scene": 2,
        "randomize_every": 1,
        "mode": "fused",
        "pipeline": {
            "load": {"component": "EnvLoader", "args": {"workflow_type": "ManipWorkflow"}},
            "randomize": {"component": "EnvRandomizer"},
            "plan": {"component": "EnvPlanner"},
            "render": {"component": "EnvRenderer", "args": {"render": False}},
            "store": {"component": "EnvWriter"},
        },
    }
    output.mkdir()
    (output / "job.yaml").write_text(yaml.safe_dump(job))
    told: list[events.Event] = []
    ended = asyncio.run(JobRun(read_job(output / "job.yaml", output=output / "out"), slots, told.append).run())
    assert ended.status == "complete", told
    return output / "out"


@slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has nobody to add up with")
def test_a_slot_with_all_cores_and_slots_with_one_each_plan_the_same_bits(tmp_path: Path) -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    whole = made(tmp_path / "whole", (Slot("cpu:0", cores),))
    split = made(tmp_path / "split", tuple(Slot(f"cpu:{core}", (core,)) for core in cores[:2]))
    assert equal_columns(published_columns(whole), published_columns(split))
