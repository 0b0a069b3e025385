"""A node tells of itself: package versions, load, GPUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nimbusd.machine import gpus
from nimbusd.node import environment
from nimbusd.node.environment import LoadMeter, environment_hash, packages
from nimbusd.transport.messages.control import GpuLoad


class NVMLError(Exception):
    """The error, named as in pynvml."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """pynvml as nvidia-ml-py has it, on a machine with two GPUs of which one fails."""

    def handle(index: int) -> int:
        if index == 1:
            raise NVMLError("GPU is lost")
        return index

    fake = ModuleType("pynvml")
    vars(fake).update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "570.86",
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=2 << 30, total=8 << 30),
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=40),
        nvmlDeviceGetName=lambda _: b"RTX",
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    gpus._nvml.cache_clear()
    yield fake
    gpus._nvml.cache_clear()


def test_versions_that_decide_episodes_are_told() -> None:
    assert {"python", "nimbusd", "numpy", "arithmetic", "libc"} <= set(packages())
    assert len(environment_hash()) == 64
    assert environment_hash() == environment_hash()


def test_every_backend_that_a_component_requires_is_among_the_packages_that_decide() -> None:
    """Those that it has through others (the dependencies of the core) are told anyway."""
    points = metadata.entry_points(group="nimbusd.components")
    ours = [point for point in points if point.value.startswith("nimbusd.")]
    modules = {module for point in ours for module in point.load().requires} | {"curobo", "gsplat"}
    assert {"sapien", "isaacsim", "bpy"} <= modules
    names = {"skimage": "scikit-image", "pxr": "usd-core", "curobo": "nvidia-curobo"}
    told = {name.replace("_", "-") for name in environment._PACKAGES}
    assert {names.get(module, module).replace("_", "-") for module in modules} <= told


def test_a_container_of_isaac_sim_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "VERSION").write_text("6.0.1-rc.7+release.1\n")
    monkeypatch.setenv("ISAAC_PATH", str(tmp_path))
    packages.cache_clear()
    assert packages()["isaacsim"] == "6.0.1-rc.7+release.1"
    monkeypatch.setenv("ISAAC_PATH", str(tmp_path / "gone"))
    packages.cache_clear()
    assert "isaacsim" not in packages()
    packages.cache_clear()


def test_the_load_is_measured_once_a_second_at_most() -> None:
    meter = LoadMeter()
    load = meter.load()
    assert 0 < load.memory_used_bytes < load.memory_total_bytes
    assert meter.load() is load


def test_gpus_are_told_with_their_load_and_a_lost_one_is_left_out(nvml: ModuleType) -> None:
    assert gpus.loads() == (GpuLoad("cuda:0 RTX", 0.4, 2 << 30, 8 << 30),)
    assert gpus.driver_version() == "570.86"


def test_without_a_driver_there_are_no_gpus(nvml: ModuleType) -> None:
    def fails() -> None:
        raise NVMLError("Driver Not Loaded")

    vars(nvml)["nvmlInit"] = fails
    assert gpus.loads() == ()
    assert gpus.driver_version() == ""
