"""Slots: what a machine's GPUs and cores become, and what a worker in each gets. NVML is a stand-in for the library."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.cli import cli as nimbusctl
from nimbusd.config import ConfigError, WorkerConfig, read_config
from nimbusd.daemon import cli as daemon
from nimbusd.machine import gpus
from nimbusd.node.slots import Slot, _dealt, cpu_slots, discover, environment, typical
from nimbusd.program.slot_options import slot_options
from tests.support.fake_nvml import FakeGpu, FakeNvml


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine of eight cores, and no choice of GPUs in the environment."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return list(range(8))


def two_gpus() -> FakeNvml:
    return FakeNvml(FakeGpu("GPU-aaaa", near=range(4)), FakeGpu("GPU-bbbb", near=range(4, 8)))


def names(slots: Iterable[Slot]) -> list[str]:
    return [slot.name for slot in slots]


def test_each_gpu_has_its_slots_and_the_cores_left_over_plan(cores: list[int]) -> None:
    slots = discover(library=two_gpus())
    assert names(slots) == ["gpu:0.0", "gpu:0.1", "gpu:1.0", "gpu:1.1", "cpu:0", "cpu:1", "cpu:2", "cpu:3"]
    assert [slot.renders for slot in slots] == [True] * 4 + [False] * 4
    assert [slot.gpu for slot in slots] == [0, 0, 1, 1, None, None, None, None]


def test_every_core_is_some_slots_and_a_gpus_slots_have_cores_near_it(cores: list[int]) -> None:
    slots = discover(workers=2, library=two_gpus())
    assert sorted(core for slot in slots for core in slot.cpus) == cores
    for slot in slots:
        near = {0: range(4), 1: range(4, 8), None: range(8)}[slot.gpu]
        assert set(slot.cpus) <= set(near)
        assert len(slot.cpus) in (1, 2)


def test_a_gpu_whose_neighbours_are_not_ours_or_not_known_uses_all_cores(cores: list[int]) -> None:
    strange = FakeNvml(FakeGpu("GPU-aaaa", near=[40, 41]), FakeGpu("GPU-bbbb", near=None))
    slots = discover(workers=0, slots_per_gpu=1, library=strange)
    assert sorted(core for slot in slots for core in slot.cpus) == cores


def test_a_worker_in_a_gpu_slot_sees_only_that_gpu_which_is_its_first(cores: list[int]) -> None:
    slot = next(slot for slot in discover(library=two_gpus()) if slot.name == "gpu:1.0")
    assert slot.device == "cuda:0"
    assert environment(slot)["CUDA_VISIBLE_DEVICES"] == "GPU-bbbb"
    assert environment(slot)["OMP_NUM_THREADS"] == str(len(slot.cpus))


def test_slots_of_one_and_of_many_cores_compute_sums_alike() -> None:
    one, many = environment(Slot("cpu:0", (0,))), environment(Slot("cpu:0", tuple(range(8))))
    assert {name for name in one if one[name] != many[name]} == {"OMP_NUM_THREADS"}
    assert one["OPENBLAS_NUM_THREADS"] == one["MKL_NUM_THREADS"] == "1"


def test_a_worker_that_only_plans_sees_no_gpu(cores: list[int]) -> None:
    slot = discover(library=two_gpus())[-1]
    assert slot.device == "cpu"
    assert environment(slot)["CUDA_VISIBLE_DEVICES"] == "-1"


def test_without_gpus_cpu_slots_do_everything_and_see_what_we_see(cores: list[int]) -> None:
    slots = discover(library=FakeNvml())
    assert names(slots) == [f"cpu:{index}" for index in range(8)]
    assert all(slot.renders and slot.device == "auto" for slot in slots)
    assert "CUDA_VISIBLE_DEVICES" not in environment(slots[0])
    assert slots == cpu_slots()


def test_gpus_can_be_chosen_or_left_alone(cores: list[int]) -> None:
    assert names(discover(0, 1, (1,), library=two_gpus())) == ["gpu:1.0"]
    alone = discover(1, 2, (), library=two_gpus())
    assert names(alone) == ["cpu:0"]
    assert alone[0].renders
    assert environment(alone[0])["CUDA_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize(
    ("visible", "found"), [("1", [1]), ("GPU-aa", [0]), ("1,0", [0, 1]), ("", []), ("7,0", []), ("0,-1,1", [0])]
)
def test_gpus_that_were_hidden_from_us_are_not_used(
    cores: list[int], monkeypatch: pytest.MonkeyPatch, visible: str, found: list[int]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    slots = discover(1, 1, library=two_gpus())
    assert [slot.gpu for slot in slots if slot.gpu is not None] == found


def test_a_lost_gpu_is_left_out(cores: list[int]) -> None:
    nvml = FakeNvml(FakeGpu("GPU-aaaa", lost=True), FakeGpu("GPU-bbbb"))
    assert names(discover(0, 2, library=nvml)) == ["gpu:1.0", "gpu:1.1"]


def divided() -> FakeNvml:
    """A board of two MIG instances (of seven numbers), and a whole one."""
    parts = {0: FakeGpu("MIG-1111", memory_bytes=10 << 30), 4: FakeGpu("MIG-2222", used_by={7: 2 << 30})}
    return FakeNvml(FakeGpu("GPU-aaaa", mig=parts), FakeGpu("GPU-bbbb", mig={}))


def test_the_instances_of_a_divided_gpu_have_slots_of_their_own(cores: list[int]) -> None:
    slots = discover(0, 2, library=divided())
    assert names(slots) == ["gpu:0.0", "gpu:0.1", "gpu:0.2", "gpu:0.3", "gpu:1.0", "gpu:1.1"]
    masks = [environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in slots]
    assert masks == ["MIG-1111", "MIG-1111", "MIG-2222", "MIG-2222", "GPU-bbbb", "GPU-bbbb"]
    assert {slot.gpu for slot in discover(0, 1, (0,), library=divided())} == {0}
    assert gpus.memory_of_process(7, "MIG-2222", divided()) == 2 << 30


@pytest.mark.parametrize(
    ("visible", "found"),
    [("MIG-2222", ["MIG-2222"]), ("MIG-2222,MIG-1111", ["MIG-1111", "MIG-2222"]), ("0", ["MIG-1111"]),
     ("GPU-aaaa", ["MIG-1111"]), ("1", ["GPU-bbbb"]), ("MIG-3", []), ("MIG-", [])],
)  # fmt: skip
def test_instances_are_named_by_their_id(
    cores: list[int], monkeypatch: pytest.MonkeyPatch, visible: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    slots = discover(1, 1, library=divided())
    assert [slot.gpu_uuid for slot in slots if slot.gpu is not None] == found


def test_a_gpu_that_shares_the_machines_memory_has_slots(cores: list[int]) -> None:
    (gpu,) = gpus.present(FakeNvml(FakeGpu("GPU-aaaa", name="NVIDIA GB10", memory_bytes=None)))
    assert gpu.memory_bytes == 0
    assert names(discover(0, 1, library=FakeNvml(FakeGpu("GPU-aaaa", memory_bytes=None)))) == ["gpu:0.0"]


def test_what_a_gpu_does_not_tell_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = FakeNvml(FakeGpu("GPU-aaaa", memory_bytes=None, busy=None), FakeGpu("GPU-bbbb"), FakeGpu("x", lost=True))
    monkeypatch.setattr(gpus, "_nvml", lambda: nvml)
    monkeypatch.setattr(gpus, "_told", set())
    for _ in range(3):
        quiet, told = gpus.loads()
    assert (quiet.busy, quiet.memory_used_bytes, quiet.memory_total_bytes) == (0, 0, 0)
    assert (told.busy, told.memory_total_bytes) == (0.4, 48 << 30)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "cuda",
        "GPU 2 cannot be asked for its load",
    ]


def test_the_stand_in_has_the_calls_of_the_package() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed (pip install 'nimbusd[gpu]')")
    assert issubclass(pynvml.NVMLLibraryMismatchError, Exception)
    assert not issubclass(pynvml.NVMLLibraryMismatchError, pynvml.NVMLError)
    for name in (name for name in dir(FakeNvml) if name.startswith("nvml")):
        real, fake = (inspect.signature(getattr(of, name)).parameters for of in (pynvml, FakeNvml))
        needed = [each for each in real.values() if each.default is each.empty]
        assert len(needed) <= len(fake) - 1 <= len(real), name  # but for self


def test_a_driver_older_than_the_package_is_no_crash() -> None:
    assert gpus.memory_of_process(7, "GPU-aaaa", FakeNvml(FakeGpu("GPU-aaaa", old_driver=True))) == 0


def test_a_gpu_that_is_not_there_is_named_with_those_that_are(cores: list[int]) -> None:
    with pytest.raises(ConfigError, match="names GPU 5, but of this node NVML knows 0, 1"):
        discover(chosen=(5,), library=two_gpus())


def test_a_node_without_any_slot_is_refused(cores: list[int]) -> None:
    with pytest.raises(ConfigError, match="no slot"):
        discover(workers=0, library=FakeNvml())


@given(wants=st.lists(st.sets(st.integers(0, 15), min_size=1).map(sorted), min_size=1, max_size=40))
def test_cores_are_dealt_out_so_that_every_slot_has_one_of_those_it_can_use(wants: list[list[int]]) -> None:
    dealt = _dealt(wants)
    assert len(dealt) == len(wants)
    assert all(mine and set(mine) <= set(cores) for mine, cores in zip(dealt, wants, strict=True))
    assert {core for mine in dealt for core in mine} == {core for cores in wants for core in cores}


def test_gpu_memory_of_a_process_is_told_by_its_pid() -> None:
    nvml = FakeNvml(FakeGpu("GPU-aaaa", used_by={7: 3 << 30, 8: 1 << 30}, drawn_by={7: 2 << 30, 9: 1 << 20}))
    assert gpus.memory_of_process(7, "GPU-aaaa", nvml) == 3 << 30
    assert gpus.memory_of_process(9, "GPU-aaaa", nvml) == 1 << 20
    assert gpus.memory_of_process(10, "GPU-aaaa", nvml) == 0  # in a container, pids are others
    assert gpus.memory_of_process(7, "GPU-gone", nvml) == 0
    assert gpus.memory_of_process(7, "-1", nvml) == 0


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"workers": -1}, "workers: must be 0 or more, but it is -1"),
        ({"slots_per_gpu": 0}, "slots_per_gpu: must be 1 or more, but it is 0"),
        ({"gpus": [-1]}, "gpus.0: must be 0 or more, but it is -1"),
        ({"memory_share": 1.5}, "memory_share: must be 1 or less, but it is 1.5"),
        ({"spares": 99}, "spares: must be 16 or less, but it is 99"),
        ({"slots_per_gpus": 2}, "unknown key 'slots_per_gpus'; did you mean 'slots_per_gpu'?"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(WorkerConfig, None, "worker", **wrong)
    assert sentence in str(error.value)


@pytest.mark.parametrize("command", [daemon, nimbusctl], ids=["nimbusd worker", "nimbusctl run"])
def test_gpus_on_the_command_line_are_numbers_or_none(command: click.Command) -> None:
    words = ["worker"] if command is daemon else ["run", "job.yaml"]
    result = CliRunner().invoke(command, [*words, "--gpus", "0,first"])
    assert result.exit_code == 2
    assert "'0,first' is neither `none` nor a list of GPUs by number, such as 0,2" in result.output


@pytest.mark.parametrize(("text", "gpus"), [("none", ()), ("0", (0,)), ("2, 0", (2, 0))])
def test_gpus_are_read_from_the_command_line(text: str, gpus: tuple[int, ...]) -> None:
    @click.command()
    @slot_options
    def show(**given: object) -> None:
        click.echo(repr(given["gpus"]))

    assert CliRunner().invoke(show, ["--gpus", text]).output.strip() == repr(gpus)
    assert CliRunner().invoke(show, []).output.strip() == "None"


def test_a_spare_is_started_for_what_most_rendering_slots_are_like(cores: list[int]) -> None:
    slots = discover(2, 1, library=two_gpus())
    assert typical(slots).renders
    assert typical((Slot("cpu:0", (0, 1)), Slot("cpu:1", (2,)), Slot("cpu:2", (3,)))).cpus == (2,)
