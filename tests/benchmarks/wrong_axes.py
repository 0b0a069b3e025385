"""Doubts about wrong axes and units, and about right ones: 40 scenes, each turned and scaled in 13 wrong ways.

    NIMBUSD_TEST_HOUSE=FOLDER python -m tests.benchmarks.wrong_axes [--first-seed N] [--json]

Two sides are compared: what `doubts` says of a scene by all that it looks at, and the plain rule of thumb "lower than
wide, and between 2 and 200 m". Other seeds (--first-seed) make other scenes of the same kinds, on which no threshold
was tried. Without NIMBUSD_TEST_HOUSE there are 37 scenes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from nimbusd.stages.load.mend.doubts import doubts
from nimbusd.stages.load.mend.upright import lean
from nimbusd.stages.types import Scene
from tests.support.right_scenes import UNITS, UPS, changed, right_scenes


def rule_of_thumb(scene: Scene) -> bool:
    low, high = scene.bounds()
    extent = high - low
    return bool(extent[2] > extent[:2].min() or not 2 < extent.max() < 200)


def measure(first_seed: int) -> dict[str, Any]:
    """Counts of both sides, the names of what ours missed or told wrongly, and how often its axis was the right one."""
    sides: dict[str, Callable[[Scene], bool]] = {"ours": lambda s: bool(doubts(s)), "rule of thumb": rule_of_thumb}
    counts = {name: Counter[str]() for name in sides}
    missed, false, axes = [], [], 0
    scenes = right_scenes(first_seed)
    for name, make in scenes.items():
        right = make()
        ways = {f"up is {axis}": changed(right, R) for axis, R in UPS.items()}
        ways |= {f"unit is {unit}": changed(right, np.eye(3), factor) for unit, factor in UNITS.items()}
        for side, tells in sides.items():
            counts[side]["false alarms"] += tells(right)
            for way, wrong in ways.items():
                told = tells(wrong)
                counts[side][way] += told
                if side == "ours" and not told:
                    missed.append(f"{name}, {way}")
        if doubts(right):
            false.append(name)
        for axis, R in UPS.items():
            found = lean(ways[f"up is {axis}"].objects)
            axes += found is not None and np.allclose(R[:, 2], found.up)
    return {"scenes": len(scenes), "told": counts, "missed": missed, "false": false, "axis_right": axes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.first_seed)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    number = found["scenes"]
    ours, thumb = found["told"]["ours"], found["told"]["rule of thumb"]
    print(f"{'':22}{'ours':>8}{'rule of thumb':>16}")
    for way in [*(f"up is {axis}" for axis in UPS), *(f"unit is {unit}" for unit in UNITS), "false alarms"]:
        print(f"{way:22}{ours[way] / number:8.1%}{thumb[way] / number:16.1%}")
    of = number * (len(UPS) + len(UNITS))
    told = [sum(side.values()) - side["false alarms"] for side in (ours, thumb)]
    print(f"{'all wrong ones':22}{told[0] / of:8.1%}{told[1] / of:16.1%}   ({told[0]} and {told[1]} of {of})")
    print(f"axis named rightly: {found['axis_right']} of {number * len(UPS)}")
    print("missed:", "; ".join(found["missed"]) or "nothing")
    print("false alarms:", "; ".join(found["false"]) or "none")


if __name__ == "__main__":
    main()
