"""The start of gsplat: its kernels are there, or the reason is, before the first picture. Torch, gsplat are stand-ins.

As gsplat 1.5 and 1.6 do, the stand-in compiles where `gsplat.cuda._backend` is imported, clears the build folder first,
and leaves `_C` None where there is no compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FILES = {
    "torch/__init__.py": """
        from types import SimpleNamespace
        cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda device: "NVIDIA L40")
        device = str
    """,
    "torch/utils/__init__.py": "",
    "torch/utils/cpp_extension.py": """
        import os
        def get_default_build_root():
            return os.environ["BUILD_ROOT"]
    """,
    "gsplat/__init__.py": "def rasterization(**given): raise AssertionError('nothing is drawn here')",
    "gsplat/cuda/__init__.py": "",
    "gsplat/cuda/_backend.py": """
        import os, shutil
        from pathlib import Path
        build = Path(os.environ["BUILD_ROOT"]) / "gsplat_cuda"
        _C = None
        if os.environ.get("NVCC") == "broken":
            raise RuntimeError("Error building extension 'gsplat_cuda'")
        if os.environ.get("NVCC") != "none":
            if not (build / "gsplat_cuda.so").exists():
                with (build.parent / "compiled").open("a") as log:
                    log.write("x")
                shutil.rmtree(build, ignore_errors=True)
                build.mkdir()  # fails where another process is at it
                os.sched_yield()
                for number in range(300):
                    (build / f"{number}.o").write_text("")
                (build / "gsplat_cuda.so").write_text("")
            _C = object()
    """,
}
START = """
from nimbusd.renderers.splats.device import choose_rasterizer
from nimbusd.stages.errors import BackendUnavailable
import sys
try:
    print(choose_rasterizer("cuda:0", sys.argv[1], 1).device_name)
except BackendUnavailable as error:
    print("refused:", error)
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds the stand-ins."""
    for name, content in FILES.items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(content))
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "BUILD_ROOT": str(tmp_path / "build")}


def start(backend: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START, backend]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_many_processes_compile_once_and_all_of_them_start(stand_ins: dict[str, str]) -> None:
    started = [start("cuda", stand_ins) for _ in range(4)]
    assert [process.communicate()[0].strip() for process in started] == ["CUDA (NVIDIA L40)"] * 4
    assert (Path(stand_ins["BUILD_ROOT"]) / "compiled").read_text() == "x"


@pytest.mark.parametrize(("nvcc", "reason"), [("none", "no CUDA toolkit"), ("broken", "could not be compiled")])
def test_without_kernels_auto_draws_on_the_cpu_and_cuda_says_why(
    stand_ins: dict[str, str], nvcc: str, reason: str
) -> None:
    environment = {**stand_ins, "NVCC": nvcc}
    assert reason in start("cuda", environment).communicate()[0]
    told, warned = start("auto", environment).communicate()
    assert told.strip() == "CPU (1 threads)"
    assert reason in warned
