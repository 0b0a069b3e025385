"""The words for a user where Blender cannot run, and the device that is taken where it can."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from nimbusd.renderers.blender.device import DEBIAN_PACKAGES, choose_device, import_bpy
from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer
from nimbusd.renderers.blender.settings import PRESETS, quality
from nimbusd.stages.errors import BackendUnavailable


def imports_fail_with(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)


def test_a_missing_package_is_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    imports_fail_with(monkeypatch, ModuleNotFoundError("No module named 'bpy'", name="bpy"))
    with pytest.raises(BackendUnavailable) as caught:
        BlenderProcRenderer(BlenderArgs()).open("auto")
    assert "pip install 'nimbusd[blender]'" in str(caught.value)
    assert "bpy" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", sorted(DEBIAN_PACKAGES))
def test_a_missing_system_library_is_named_with_its_debian_package(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    text = f"{library}: cannot open shared object file: No such file or directory"
    imports_fail_with(monkeypatch, ImportError(text))
    with pytest.raises(BackendUnavailable) as caught:
        import_bpy()
    assert library in str(caught.value)
    assert f"apt-get install {DEBIAN_PACKAGES[library]}" in str(caught.value)


def test_any_other_import_failure_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    imports_fail_with(monkeypatch, ImportError("numpy failed"))
    with pytest.raises(BackendUnavailable, match="bpy does not load: numpy failed"):
        import_bpy()


class FakePreferences(SimpleNamespace):
    """Stands for Cycles' preferences on a machine with the devices given."""

    def get_devices_for_type(self, kind: str) -> list[Any]:
        return [entry for entry in self.devices if entry.type in (kind, "CPU")]


def machine(*kinds: str) -> Any:
    devices = [SimpleNamespace(type=kind, name=f"{kind} card {i}", use=True) for i, kind in enumerate(kinds)]
    devices.append(SimpleNamespace(type="CPU", name="a processor", use=True))
    preferences = FakePreferences(devices=devices, compute_device_type="?")
    addons = {"cycles": SimpleNamespace(preferences=preferences)}
    return SimpleNamespace(context=SimpleNamespace(preferences=SimpleNamespace(addons=addons)))


@pytest.mark.parametrize(
    ("kinds", "slot", "choice", "expected"),
    [
        ((), "auto", "auto", "CPU (a processor)"),
        (("CUDA",), "auto", "auto", "CUDA (CUDA card 0)"),
        (("CUDA", "OPTIX"), "auto", "auto", "OPTIX (OPTIX card 1)"),
        (("CUDA", "OPTIX"), "cuda:0", "cuda", "CUDA (CUDA card 0)"),
        (("CUDA", "CUDA"), "cuda:1", "auto", "CUDA (CUDA card 1)"),
        (("CUDA", "OPTIX"), "cpu", "auto", "CPU (a processor)"),
        (("CUDA", "OPTIX"), "auto", "cpu", "CPU (a processor)"),
    ],
)
def test_the_probe_takes_optix_then_cuda_then_the_cpu(
    kinds: tuple[str, ...], slot: str, choice: Any, expected: str
) -> None:
    assert str(choose_device(machine(*kinds), slot, choice)) == expected


def test_only_the_chosen_gpu_is_switched_on() -> None:
    bpy = machine("OPTIX", "OPTIX")
    choose_device(bpy, "cuda:1", "auto")
    devices = bpy.context.preferences.addons["cycles"].preferences.devices
    assert [entry.use for entry in devices] == [False, True, False]


@pytest.mark.parametrize(
    ("kinds", "slot", "choice", "text"),
    [
        ((), "cuda:0", "auto", "no OPTIX or CUDA device for 'cuda:0'"),
        (("CUDA",), "cuda:1", "auto", "no OPTIX or CUDA device for 'cuda:1'"),
        (("CUDA",), "auto", "optix", "no OPTIX device for 'auto'"),
        ((), "tpu", "auto", "knows no device 'tpu'"),
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_and_not_the_cpu(
    kinds: tuple[str, ...], slot: str, choice: Any, text: str
) -> None:
    with pytest.raises(BackendUnavailable, match=text):
        choose_device(machine(*kinds), slot, choice)


def test_what_the_arguments_set_overrides_the_preset() -> None:
    assert quality(BlenderArgs(preset="high")) == PRESETS["high"]
    changed = quality(BlenderArgs(preset="high", samples=3, bounces=0))
    assert changed == PRESETS["high"].model_copy(update={"samples": 3, "bounces": 0})
