"""Clusters in bad weather, one after the other, each drawn from its seed, with all invariants checked.

    python -m nimbusd.simulate.storm --seeds 100000
    python -m nimbusd.simulate.storm --replay 4711

Ends with status 1 at the first seed that violates an invariant, and says how to replay it.
"""

from __future__ import annotations

import argparse
import pprint
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from nimbusd.simulate.scenario import draw_scenario, play

CHUNK = 50


def first_failure(first: int, count: int) -> tuple[int, str] | None:
    """Play seeds first … first + count - 1. Returns the first that fails and what is wrong, if any."""
    for seed in range(first, first + count):
        try:
            play(draw_scenario(seed))
        except AssertionError as error:  # a Violation, or an assertion of the machines themselves
            return seed, f"{type(error).__name__}: {error}"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return seed, f"{type(error).__name__}: {error}"
    return None


def _chunks(first: int, count: int, processes: int) -> Iterator[tuple[int, tuple[int, str] | None]]:
    """Seeds played, and what failed, chunk by chunk."""
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - start) for start in starts]
    if processes == 1:
        for start, size in zip(starts, sizes, strict=True):
            yield size, first_failure(start, size)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(sizes, pool.map(first_failure, starts, sizes), strict=True)


def replay(seed: int) -> None:
    """Show a scenario and play it, up to its violation."""
    scenario = draw_scenario(seed)
    pprint.pprint(scenario, width=120)
    cluster = play(scenario)
    print(f"seed {seed}: all is well after {cluster.clock.steps} steps, digest {cluster.clock.digest:08x}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="processes that play them (default: 1)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="show one scenario and play it")
    args = parser.parse_args()
    if args.replay is not None:
        replay(args.replay)
        return
    began, done = time.monotonic(), 0
    for size, failure in _chunks(args.first, args.seeds, args.processes):
        if failure is not None:
            seed, what = failure
            print(f"seed {seed} fails: {what}\nreplay it: python -m nimbusd.simulate.storm --replay {seed}")
            sys.exit(1)
        done += size
        if sys.stderr.isatty():
            rate = done / (time.monotonic() - began)
            print(f"\r{done} of {args.seeds} seeds, {rate:.0f}/s", end="", file=sys.stderr)
    took_s = time.monotonic() - began
    print(f"\r{done} clusters, no invariant violated, {took_s:.1f} s, {done / took_s:.0f} seeds/s")


if __name__ == "__main__":
    main()
