"""Starts Isaac Sim, once per process, and says in one sentence why it cannot run here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from nimbusd.stages.errors import BackendUnavailable

INSTALL = (
    "pip install 'isaacsim[all,extscache]==5.1.*' (Python 3.11; 6.* wants Python 3.12) with NVIDIA's own index as "
    "--extra-index-url"
)

_NO_RAY_CORES = re.compile(r"\b(?:[ABHPV]\d00X?|[AH]800|A30|GH200|GB200|K\d0|GTX|MX\d+)\b")

_running: dict[str, Any] = {}
"""The application of this process and the launch settings it was started with: Kit cannot start twice."""


def start_app(device: str, settings: Mapping[str, Any]) -> Any:
    """The process's SimulationApp, started at the first call. device: `auto` or `cuda:N`.

    It runs until the process ends, since its own `close` ends the process. Raises BackendUnavailable.
    """
    config = launch_config(device, settings)
    if _running:
        if _running["config"] != config:
            raise BackendUnavailable(
                "Isaac Sim already runs in this process with other settings or on another device, and it cannot start "
                "twice: use one IsaacSimRenderer configuration per process"
            )
        return _running["app"]
    application = _import_app()
    reason = why_no_rtx(gpu_names())
    if reason is not None:
        raise BackendUnavailable(reason)
    arguments, interrupt = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = arguments[:1]  # Kit would take our own options for its own
    try:
        app = application(config)
    except (Exception, SystemExit) as error:
        raise BackendUnavailable(f"Isaac Sim did not start ({type(error).__name__}: {error}); see its log") from error
    finally:
        sys.argv = arguments
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
    _running.update(app=app, config=config)
    return app


def launch_config(device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that SimulationApp is started with: on `auto`, on the first GPU that this process sees.

    It chooses the GPU by CUDA's number, which heeds CUDA_VISIBLE_DEVICES as slots set it. `active_gpu` would not: it
    counts all graphics devices. Version 6.2's `active_cuda_gpus` is handed on as this same argument; the comma at its
    end keeps it text, the only kind that the renderer reads. Threads are those of the slot.
    Raises BackendUnavailable for a device that it cannot use.
    """
    number = "0" if device == "auto" else device.removeprefix("cuda:")
    if number == device or not number.isdigit():
        raise BackendUnavailable(
            f"Isaac Sim cannot render on device {device!r}: it needs an NVIDIA RTX GPU, named `cuda:0`, `cuda:1` …"
        )
    return {
        "headless": True,
        "multi_gpu": False,
        "physics_gpu": int(number),
        "extra_args": [f"--/renderer/multiGpu/activeCudaGpus={int(number)},"],
        "limit_cpu_threads": len(os.sched_getaffinity(0)),
        **settings,
    }


def _import_app() -> Any:
    try:
        from isaacsim import SimulationApp
    except ImportError as error:
        found = (
            "is not installed"
            if isinstance(error, ModuleNotFoundError) and error.name == "isaacsim"
            else f"is not complete ({error})"
        )
        raise BackendUnavailable(
            f"Isaac Sim {found}: on a machine with an RTX GPU, {INSTALL}; the package of that name in the public "
            f"registry is a placeholder"
        ) from error
    except (EOFError, SystemExit) as error:
        # Its bootstrap ends the process for whatever goes wrong; where it asked for consent, its input ended.
        text = str(error) or type(error).__name__
        consent = isinstance(error, EOFError) or "EOF" in text or "EULA" in text
        raise BackendUnavailable(
            f"Isaac Sim does not start ({text})"
            + (
                ": it asks for consent to NVIDIA's licence; read it, then set OMNI_KIT_ACCEPT_EULA=YES in the "
                "environment of the node"
                if consent
                else f"; {INSTALL}"
            )
        ) from error
    if SimulationApp is None:  # the package's own mark where its kernel is missing
        raise BackendUnavailable(
            f"Isaac Sim is not complete (no SimulationApp): on a machine with an RTX GPU, {INSTALL}"
        )
    return SimulationApp


def version() -> str:
    """Isaac Sim's version, such as `5.1.0`, while it runs; containers of it have no package that could be asked."""
    from isaacsim.core.version import get_version

    return str(get_version()[0]) or "unknown"


def gpu_names() -> list[str]:
    """Names of this machine's NVIDIA GPUs; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True, env=os.environ)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]


def why_no_rtx(names: Sequence[str]) -> str | None:
    """The reason that none of these GPUs can run Isaac Sim; None where one may."""
    if not names:
        return "Isaac Sim needs an NVIDIA RTX GPU and its driver, and nvidia-smi names none on this machine"
    if all(_NO_RAY_CORES.search(name) and "RTX" not in name for name in names):
        return (
            f"Isaac Sim needs an NVIDIA GPU with ray tracing cores (RTX, L4, L40, A10, A40, T4), "
            f"and this machine has {', '.join(sorted(set(names)))}"
        )
    return None
