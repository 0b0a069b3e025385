"""docs/extend/renderer.md makes a renderer: its code makes episodes that are stored and verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.job import read_job
from nimbusd.renderers.raycast import RayCaster
from nimbusd.stages import BaseRenderer, RenderError
from nimbusd.stages.registry import create
from nimbusd.stages.store.read import open_dataset
from tests.support.guide_pages import GuidePage

ROOM = """o floor
v 0 0 0
v 4 0 0
v 4 3 0
v 0 3 0
f 1 2 3 4
o wall_north
v 0 3 0
v 4 3 0
v 4 3 2.5
v 0 3 2.5
f 5 6 7 8
o wall_east
v 4 0 0
v 4 3 0
v 4 3 2.5
v 4 0 2.5
f 9 10 11 12
o wall_south
v 0 0 0
v 4 0 0
v 4 0 2.5
v 0 0 2.5
f 13 14 15 16
o wall_west
v 0 0 0
v 0 3 0
v 0 3 2.5
v 0 0 2.5
f 17 18 19 20
o desk
v 3 0 0.7
v 4 0 0.7
v 4 1 0.7
v 3 1 0.7
f 21 22 23 24
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuidePage]:
    page = GuidePage("renderer.md", tmp_path)
    page.write("normal_view.py", page.block("python"))
    page.write("box.obj", ROOM)
    page.write("job.yaml", page.block("yaml"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield page
    page.forget("normal_view")


def renderer() -> BaseRenderer[Any]:
    made = create("normal_view:NormalView", "render", {})
    made.open("auto")
    return made


@pytest.mark.processes
def test_the_pages_commands_check_run_and_verify_the_pages_job(page: GuidePage) -> None:
    page.nimbusctl("check", "job.yaml")
    page.nimbusctl("run", "job.yaml", "--workers", "1", "--spares", "0")
    page.nimbusctl("verify", "out/normals")
    dataset = open_dataset(page.folder / "out" / "normals")
    assert [dataset.meta(index)["components"]["render"]["name"] for index in range(2)] == ["NormalView"] * 2


def test_it_sees_the_depths_and_objects_that_rays_meet(page: GuidePage) -> None:
    """The same as Embree, which casts the rays of our own renderers."""
    job = read_job(page.folder / "job.yaml", output=page.folder / "out")
    scene = job.make("load").load_asset(job.scene_config("box"))
    seq = job.make("plan").gen_sequence(scene, np.random.default_rng(0))
    ours = renderer()
    ours.load(scene)
    seen = ours.gen_obs(seq)
    caster = RayCaster(scene)
    caster.prepare(frozenset())
    frames = seen.frames["front"]
    assert frames.depth_m is not None
    assert frames.instance is not None
    for t in range(len(seq)):
        depth_m, instance = caster.cast(seq.cameras[0], seq.T_world_camera["front"][t], {})
        np.testing.assert_allclose(frames.depth_m[t], depth_m, atol=1e-4)
        assert (frames.instance[t] == instance).all()
    assert len(np.unique(frames.rgb[frames.instance > 0], axis=0)) > 1, "what faces elsewhere has another colour"


def test_it_keeps_the_promises_of_the_table(page: GuidePage) -> None:
    ours = renderer()
    assert ours.device_name
    with pytest.raises(RenderError, match="no scene is loaded"):
        ours.gen_obs(None)  # type: ignore[arg-type]
    ours.close()
