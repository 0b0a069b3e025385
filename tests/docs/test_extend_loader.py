"""docs/extend/loader.md makes a loader: its file is loaded, planned in, and refused where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nimbusd.job import check_job, load_job
from nimbusd.stages import AssetError
from nimbusd.stages.store.read import open_dataset
from tests.support.guide_pages import GuidePage


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuidePage]:
    page = GuidePage("loader.md", tmp_path)
    page.write("box_lists.py", page.block("python"))
    page.write("studio.boxes", page.block("text"))
    page.write("job.yaml", page.block("yaml"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield page
    page.forget("box_lists")


@pytest.mark.processes
def test_the_pages_commands_check_and_run_the_pages_job(page: GuidePage) -> None:
    """Shown by the renderer of the page beside it, which needs no other packages."""
    page.write("normal_view.py", GuidePage("renderer.md", page.folder).block("python"))
    shown = ("--set", "pipeline.render={component: 'normal_view:NormalView'}")
    media = ("--set", "pipeline.store.args={media: image}")
    page.nimbusctl("check", "job.yaml", "--deep", *shown)
    page.nimbusctl("run", "job.yaml", "--workers", "1", "--spares", "0", *shown, *media)
    assert page.nimbusctl("verify", "out/studio").startswith("OK: ")
    dataset = open_dataset(page.folder / "out" / "studio")
    assert [dataset.meta(index)["components"]["load"]["name"] for index in range(3)] == ["BoxListLoader"] * 3


def test_its_boxes_are_where_the_file_has_them_and_turned_outwards(page: GuidePage) -> None:
    job = load_job(page.folder / "job.yaml").job
    scene = job.make("load").load_asset(job.scene_config("studio"))
    desk = next(obj for obj in scene.objects if obj.name == "desk")
    points = desk.world_vertices()
    np.testing.assert_allclose(points.min(axis=0), [2.7, 2.15, 0.0], atol=1e-6)
    np.testing.assert_allclose(points.max(axis=0), [3.9, 2.85, 0.74], atol=1e-6)
    a, b, c = (points[desk.faces[:, corner]] for corner in range(3))
    outwards = (a + b + c) / 3 - points.mean(axis=0)
    assert (np.einsum("fi,fi->f", np.cross(b - a, c - a), outwards) > 0).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("desk desk 1 2 3\n", r"studio\.boxes:1: 5 words; a box has 8"),
        ("# a list\ndesk desk 1 2 3 4 5 tall\n", r"studio\.boxes:2: could not convert .*'tall'"),
        ("desk desk 1 2 3 4 5 0\n", r"studio\.boxes:1: box 'desk' must have"),
        ("# nothing\n", r"lists no box"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(page: GuidePage, text: str, sentence: str) -> None:
    page.write("studio.boxes", text)
    job = load_job(page.folder / "job.yaml").job
    with pytest.raises(AssetError, match=sentence):
        job.make("load").load_asset(job.scene_config("studio"))


def test_a_file_that_is_not_there_is_told_by_the_check(page: GuidePage) -> None:
    (page.folder / "studio.boxes").unlink()
    (error,) = check_job(load_job(page.folder / "job.yaml")).errors
    assert "studio.boxes does not exist" in error.text
