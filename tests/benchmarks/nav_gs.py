"""End to end through Gaussian splats: ours against the usual lockstep pipeline, the same trajectories and formats.

    python -m tests.benchmarks.nav_gs [JOB] [--set KEY=VALUE] [--json]

Each side is a process of its own, started cold but with compiled kernels in the cache, one after the other, on all
cores of this machine. Lockstep runs twice: with the original splatting algorithm (`original`), and with our
rasterizer (`ours`), so that only the way of working differs. Our seconds are summed over the workers. Exits with 1
where ours is less than GOAL times as fast as the lockstep pipeline with the original algorithm.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nimbusd.renderers.splats.cpu import warm_up
from tests.benchmarks.nav_sides import compare

GOAL = 2.2
VARIANTS = {"lockstep, original": {"ours": False}, "lockstep, ours": {"ours": True}}


def main() -> None:
    warm_up()
    speedups = compare(__doc__, Path("examples/nav_gs.yaml"), "tests.benchmarks.gs_lockstep", VARIANTS)
    sys.exit(speedups["lockstep, original"] < GOAL)


if __name__ == "__main__":
    main()
