"""A node tells of itself: package versions, load, GPUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nimbusd.core.environments import canonical
from nimbusd.machine import gpus
from nimbusd.node import environment as environment_module
from nimbusd.node.environment import LoadMeter, environment, packages
from nimbusd.stages.errors import NimbusError
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
    assert len(environment().hash) == 64
    assert environment() == environment()


def test_every_installed_package_is_told() -> None:
    installed = {canonical(one.metadata["Name"]) for one in metadata.distributions()}
    assert {"pytest", "mujoco", "fast-simplification"} <= installed <= set(packages())


def test_what_a_broken_installation_left_behind_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"nameless": "Version: 1.0", "odd": "Name: odd\nVersion: 1.0\x1b[31m", "fine": "Name: fine\nVersion: 2.5"}
    for name, text in left.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\n{text}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    packages.cache_clear()
    told = packages()
    packages.cache_clear()
    assert told["fine"] == "2.5"
    assert not {"odd", "nameless"} & set(told)


def test_more_packages_than_a_message_holds_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_module, "MOST_PACKAGES", 3)
    packages.cache_clear()
    with pytest.raises(NimbusError, match=r"packages are installed in .*, more than the 3 "):
        packages()
    packages.cache_clear()


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
