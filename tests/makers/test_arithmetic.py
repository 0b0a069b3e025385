"""Same seed, same bits: what every process that makes episodes computes with, wherever memory lies."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nimbusd.makers.arithmetic import LESS, MAKER_ENVIRONMENT, ONLY, Simd, arithmetic, maker_environment, simd
from tests.processes.test_environment_changes import write_job
from tests.support.slow import slow
from tests.support.toy_jobs import scenes, write_toy_job

SSE = ("SSE", "SSE2", "SSE3")
V2 = ("SSSE3", "SSE41", "POPCNT", "SSE42")
V3 = ("AVX", "F16C", "FMA3", "AVX2")
AVX512 = ("AVX512F", "AVX512CD", "AVX512_SKX")
KNL = ("AVX512_KNL", "AVX512_KNM")
"""Of processors that nobody has any more."""

OLD_NUMPY = Simd("x86_64", SSE, V2 + V3 + AVX512, KNL)
"""NumPy 1.26 on a processor with AVX-512."""
NO_AVX512 = Simd("x86_64", SSE, V2 + V3, AVX512 + KNL)
NEHALEM = Simd("x86_64", SSE, V2, V3 + AVX512 + KNL)
NEW_NUMPY = Simd("x86_64", ("X86_V2",), ("X86_V3", "X86_V4", "AVX512_ICL"), ("AVX512_SPR",))
"""NumPy 2.4."""
NATIVE = Simd("x86_64", (*SSE, *V2, *V3, "AVX512F"), (), ())
"""Built for one machine alone."""
ARM = Simd("aarch64", ("NEON", "ASIMD"), ("ASIMDHP", "SVE"), ("ASIMDFHM",))


def off(here: Simd) -> set[str]:
    return set(maker_environment({}, here)[LESS].split())


def test_makers_do_without_what_not_every_usual_processor_has_by_the_names_that_numpy_itself_knows() -> None:
    assert off(OLD_NUMPY) == {*AVX512, *KNL}
    assert off(NO_AVX512) == off(OLD_NUMPY), "with and without AVX-512 alike"
    assert off(NEW_NUMPY) == {"X86_V4", "AVX512_ICL", "AVX512_SPR"}
    assert off(ARM) == {"ASIMDHP", "SVE", "ASIMDFHM"}
    assert off(NATIVE) == set(), "NumPy cannot be imported when it is told to do without its baseline"
    assert off(Simd("riscv64", (), (), ())) == set()


@pytest.mark.parametrize("here", [OLD_NUMPY, NO_AVX512, NEHALEM, NEW_NUMPY, NATIVE, ARM])
def test_a_maker_that_starts_makers_gives_them_what_it_has(here: Simd) -> None:
    made = maker_environment({"PATH": "/bin"}, here)
    left = tuple(name for name in here.found if name not in made[LESS].split())
    within = Simd(here.machine, here.baseline, left, tuple({*here.found, *here.missing} - {*left}))
    again = maker_environment(made, within)
    assert {**again, LESS: set(again[LESS].split())} == {**made, LESS: set(made[LESS].split())}
    assert {*arithmetic(made, within).split(", ")} == {*arithmetic({"PATH": "/bin"}, here).split(", ")}
    assert made["PATH"] == "/bin"
    assert MAKER_ENVIRONMENT.items() <= made.items()


def test_linear_algebra_has_the_kernels_of_the_same_level() -> None:
    kernels = {here: maker_environment({}, here).get("OPENBLAS_CORETYPE") for here in (OLD_NUMPY, NEW_NUMPY, NATIVE)}
    assert set(kernels.values()) == {"Haswell"}
    assert maker_environment({}, NEHALEM)["OPENBLAS_CORETYPE"] == "Prescott"
    assert maker_environment({}, ARM)["OPENBLAS_CORETYPE"] == "ARMV8"
    assert maker_environment({}, OLD_NUMPY)["MKL_CBWR"] == "COMPATIBLE"


def test_what_makers_compute_with_is_said_and_nodes_that_differ_say_so() -> None:
    assert arithmetic({}, OLD_NUMPY) == arithmetic({}, NO_AVX512) == arithmetic({}, NEW_NUMPY) == "x86-64-v3"
    assert arithmetic({}, NEHALEM) == "x86-64-v3, no AVX, no F16C, no FMA3, no AVX2"
    assert arithmetic({}, NATIVE) == "x86-64-v3, AVX512F"
    assert arithmetic({}, ARM) == "NEON ASIMD"
    assert arithmetic({}, Simd("riscv64", (), (), ())) == "the least"


def test_what_a_user_has_chosen_stays_and_is_said() -> None:
    chosen = {"OPENBLAS_CORETYPE": "SkylakeX" * 100, "MKL_CBWR": ""}
    made = maker_environment(chosen, OLD_NUMPY)
    assert made["OPENBLAS_CORETYPE"] == chosen["OPENBLAS_CORETYPE"]
    assert made["MKL_CBWR"] == "COMPATIBLE", "an empty variable is no choice"
    assert arithmetic(chosen, OLD_NUMPY) == "x86-64-v3, OPENBLAS_CORETYPE=SkylakeXSkylakeXSkyl"
    without_avx2 = Simd("x86_64", SSE, V2 + V3[:-1], ("AVX2", *AVX512))
    assert "AVX2" in maker_environment({LESS: "AVX2"}, without_avx2)[LESS].split()
    assert arithmetic({LESS: "AVX2"}, without_avx2) == "x86-64-v3, no AVX2"
    assert ONLY not in maker_environment({ONLY: "AVX2"}, OLD_NUMPY), "NumPy refuses to be told both"


# --- real processes ---


def tried(env: dict[str, str]) -> dict[str, Any]:
    """The findings of `tests.support.placements` in a process with this environment. Its warnings are errors."""
    command = [sys.executable, "-W", "error::ImportWarning", "-m", "tests.support.placements"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def unrestricted() -> dict[str, str]:
    names = {LESS, ONLY, *maker_environment({})} - MAKER_ENVIRONMENT.keys()
    return {name: value for name, value in os.environ.items() if name not in names}


@pytest.fixture(scope="module")
def makers() -> dict[str, Any]:
    return tried(maker_environment(unrestricted()))


def test_in_makers_no_function_of_numpy_gives_other_bits_where_memory_lies_otherwise(makers: dict[str, Any]) -> None:
    assert makers["placed"] == makers["stored"] == []
    assert set(makers["found"]) <= simd().shared


def test_stored_numbers_do_not_depend_on_where_memory_lies_in_any_process() -> None:
    anywhere = tried(unrestricted())
    if {"AVX512_SKX", "X86_V4"} & {*anywhere["found"]}:  # here it can be seen that the placements are those that matter
        assert "arctan2(float64)" in anywhere["placed"]
        assert anywhere["stored"] == ["arctan2"], (
            "that of NumPy, which shows that memory lies as it should for the test"
        )
    else:
        assert anywhere["placed"] == anywhere["stored"] == []


def test_linear_algebra_gives_the_same_bits_whether_or_not_the_processor_shows_more(makers: dict[str, Any]) -> None:
    made = maker_environment(unrestricted())
    hiding = (LESS, "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS")
    smaller = unrestricted() | {name: made[name] for name in hiding if name in made}
    assert tried(smaller)["sums"] == makers["sums"], "as on a processor that has no more"
    if platform.machine() == "x86_64":
        others = tried(made | {"OPENBLAS_CORETYPE": "Nehalem"})["sums"]
        assert others != makers["sums"], "of other kernels, which shows that bits would differ"


def job(folder: Path, mode: str) -> Path:
    args = {"notes": str(folder)}
    pipeline = {
        stage: {"component": f"tests.support.machine_components:Instructions{name}", "args": args}
        for stage, name in (("plan", "Planner"), ("render", "Renderer"), ("store", "Writer"))
    }
    return write_toy_job(folder / "job.yaml", pipeline, mode=mode, scenes=scenes("a"), episodes_per_scene=2)


def nimbusctl(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nimbusd.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, env={**unrestricted(), **env}, check=False)


@pytest.mark.processes
def test_planners_renderers_publishers_and_replays_compute_with_the_same_instructions(tmp_path: Path) -> None:
    path = str(job(tmp_path, "decoupled"))
    done = nimbusctl("run", path, "--workers", "2", "--spares", "0")
    assert done.returncode == 0, done.stderr
    done = nimbusctl("replay", path, "a/0")
    assert done.returncode == 0, done.stdout
    notes = [json.loads(line) for note in tmp_path.glob("*.notes") for line in note.read_text().splitlines()]
    assert {note["who"] for note in notes} == {"plan", "render", "store", "publish"}
    assert len({note["pid"] for note in notes}) >= 4, "a planner, a renderer, a publisher and a replay"
    assert {note["kernel"] for note in notes} == {maker_environment(unrestricted())["OPENBLAS_CORETYPE"]}
    assert {tuple(note["found"]) for note in notes} == {tuple(name for name in simd().found if name in simd().shared)}
    assert len({note["order"] for note in notes}) == 1, "a set of strings has one order"


@slow
@pytest.mark.processes
def test_a_job_waits_where_its_user_has_numpy_do_without_what_it_began_with(tmp_path: Path) -> None:
    less = [name for name in simd().found if name in simd().shared][-1:]
    faults = {"kind": "raise", "marks": str(tmp_path / "marks"), "states": list(range(1, 1000))}  # one is made
    path = str(write_job(tmp_path, "toy", 2, component="tests.support.toy:FaultyRenderer", args=faults))
    command = ["run", path, "--workers", "1", "--spares", "0", "--json"]
    assert nimbusctl(*command).returncode == 1
    done = nimbusctl(*command, "--retry-quarantined", **{LESS: " ".join(less)})
    waiting = [event for line in done.stdout.splitlines() if (event := json.loads(line))["event"] == "job_waiting"]
    began = arithmetic(unrestricted())
    assert len(waiting) == len(less), "nothing to wait for where NumPy has nothing that one could do without"
    assert all(f"arithmetic {began} when this job began, {began}, no {less[0]} here" in e["why"] for e in waiting)
