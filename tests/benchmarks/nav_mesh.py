"""End to end: ours against the usual lockstep pipeline, the same trajectories, settings and formats.

    python -m tests.benchmarks.nav_mesh [JOB] [--set KEY=VALUE] [--json]

Each side is a process of its own that is started cold, one after the other, on all cores of this machine. The
table gives seconds of work by stage, and the wall-clock time of the whole, start-up and publishing included.
Lockstep runs twice: with Blender's stock denoiser and lights (`stock`), and with the settings we chose (`ours`);
`tests.benchmarks.blender_frames` shows that the two look alike. Our seconds are summed over the workers.
"""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.nav_sides import compare

VARIANTS = {"lockstep, stock": {"stock": True}, "lockstep, ours": {"stock": False}}


def main() -> None:
    compare(__doc__, Path("examples/nav_mesh.yaml"), "tests.benchmarks.lockstep", VARIANTS)


if __name__ == "__main__":
    main()
