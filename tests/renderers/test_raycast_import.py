"""The words for a user where embreex is missing: of rays, whatever renderer casts them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer
from nimbusd.renderers.raycast import RayCaster, import_embree
from nimbusd.renderers.splats.renderer import GsArgs, SCGSRenderer
from nimbusd.stages.errors import BackendUnavailable
from tests.support.store_makers import make_scene


def embreex_fails_with(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    real: Callable[[str], object] = importlib.import_module

    def load(name: str) -> object:
        if name.startswith("embreex"):
            raise error
        return real(name)

    monkeypatch.setattr(importlib, "import_module", load)


def test_a_splat_job_without_embreex_is_told_of_rays_and_not_of_blender(monkeypatch: pytest.MonkeyPatch) -> None:
    embreex_fails_with(monkeypatch, ModuleNotFoundError("No module named 'embreex'", name="embreex"))
    with pytest.raises(BackendUnavailable, match="not installed here: pip install embreex") as caught:
        SCGSRenderer(GsArgs(segmentation=True)).open("cpu")
    assert "lender" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match="not installed here: pip install embreex"):
        RayCaster(make_scene()).prepare(frozenset())


def test_any_other_failure_of_embreex_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    embreex_fails_with(monkeypatch, ImportError("numpy failed"))
    with pytest.raises(BackendUnavailable, match="embreex does not load: numpy failed"):
        import_embree()


def test_renderers_need_embreex_only_where_they_cast_rays() -> None:
    assert "embreex" not in SCGSRenderer(GsArgs()).needs()
    assert "embreex" in SCGSRenderer(GsArgs(segmentation=True)).needs()
    assert "embreex" in SCGSRenderer(GsArgs(max_misalignment_px=2.0)).needs()
    assert "embreex" in BlenderProcRenderer(BlenderArgs()).needs()
    assert "embreex" not in BlenderProcRenderer(BlenderArgs(depth=False, segmentation=False)).needs()
