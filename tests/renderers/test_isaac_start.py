"""The start of Isaac Sim: on which GPU, with what settings, and in which words it is refused. Nothing here runs RTX."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nimbusd.renderers.isaac import app as isaac_app
from nimbusd.renderers.isaac.app import launch_config, start_app, why_no_rtx
from nimbusd.renderers.isaac.renderer import IsaacArgs, IsaacSimRenderer
from nimbusd.stages.errors import BackendUnavailable
from tests.support.isaac_stand_in import StandIn, installed

needs_usd = pytest.mark.skipif(
    importlib.util.find_spec("pxr") is None, reason="USD is missing: pip install 'nimbusd[usd]' (usd-core)"
)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return installed(monkeypatch)


def test_a_missing_package_is_one_sentence_that_names_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isaacsim", None)
    with pytest.raises(BackendUnavailable, match=r"own index as --extra-index-url.*public registry is a placeholder"):
        IsaacSimRenderer(IsaacArgs()).open("auto")


@pytest.mark.parametrize("content", [{}, {"SimulationApp": None}])
def test_the_placeholder_package_is_told_from_the_real_one(
    monkeypatch: pytest.MonkeyPatch, content: dict[str, object]
) -> None:
    module = ModuleType("isaacsim")
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, "isaacsim", module)
    with pytest.raises(BackendUnavailable, match="not complete"):
        start_app("auto", {})


@needs_usd
def test_a_machine_without_an_rtx_gpu_is_refused_before_isaac_sim_starts(
    monkeypatch: pytest.MonkeyPatch, stand_in: StandIn
) -> None:
    monkeypatch.setattr(isaac_app, "gpu_names", list)
    with pytest.raises(BackendUnavailable, match="RTX GPU"):
        start_app("auto", {})
    assert stand_in.configs == []


@pytest.mark.parametrize("name", ["NVIDIA H200", "NVIDIA A100-SXM4-80GB", "Tesla V100-PCIE-16GB", "NVIDIA GTX 1080"])
def test_gpus_without_ray_tracing_cores_are_refused(name: str) -> None:
    assert name in str(why_no_rtx([name]))


@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce RTX 4090", "NVIDIA L40S", "NVIDIA A40", "NVIDIA RTX A400", "Tesla T4"]
)
def test_gpus_with_ray_tracing_cores_are_taken(name: str) -> None:
    assert why_no_rtx([name]) is None
    assert why_no_rtx(["NVIDIA H100 PCIe", name]) is None


@needs_usd
@pytest.mark.parametrize(
    ("mask", "device", "gpu"),
    [(None, "auto", "GPU-aaaa"), (None, "cuda:1", "GPU-bbbb"), ("GPU-bbbb", "cuda:0", "GPU-bbbb"),
     ("GPU-bbbb", "auto", "GPU-bbbb"), ("GPU-bbbb,GPU-aaaa", "cuda:1", "GPU-aaaa")],
)  # fmt: skip
def test_it_renders_on_the_gpu_that_cuda_gives_this_number(
    monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, mask: str | None, device: str, gpu: str
) -> None:
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    start_app(device, {"renderer": "PathTracing", "samples_per_pixel_per_frame": 1})
    assert stand_in.rendered_on == gpu


@needs_usd
def test_it_has_as_many_threads_as_its_slot_has_cores(monkeypatch: pytest.MonkeyPatch, stand_in: StandIn) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 7})
    IsaacSimRenderer(IsaacArgs()).open("cuda:0")
    assert stand_in.configs[0]["limit_cpu_threads"] == 3


@pytest.mark.parametrize(
    ("ending", "said", "consent"),
    [
        ("Unable to find 'omniverse-kit' package", "omniverse-kit", False),
        ("Unable to bootstrap inner kit kernel: libGLU.so.1: cannot open shared object file", "libGLU", False),
        ("Unable to bootstrap inner kit kernel: EOF when reading a line", "kernel", True),
        ("Unable to bootstrap inner kit kernel: the EULA must be accepted", "kernel", True),
    ],
)
def test_a_bootstrap_that_ends_the_process_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str, said: str, consent: bool
) -> None:
    (tmp_path / "isaacsim.py").write_text(f"import sys\nsys.exit({ending!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "isaacsim", raising=False)
    with pytest.raises(BackendUnavailable, match=said) as error:
        start_app("auto", {})
    assert ("OMNI_KIT_ACCEPT_EULA" in str(error.value)) == consent


def test_the_cpu_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="'cpu'"):
        launch_config("cpu", {})


@needs_usd
def test_isaac_sim_starts_once_per_process(stand_in: StandIn) -> None:
    settings = {"renderer": "PathTracing", "samples_per_pixel_per_frame": 1}
    assert start_app("auto", settings) is start_app("cuda:0", settings)
    assert len(stand_in.configs) == 1
    with pytest.raises(BackendUnavailable, match="cannot start twice"):
        start_app("cuda:1", settings)
