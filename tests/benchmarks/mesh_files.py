"""Random valid mesh files against the loader: loaded equal, or refused by name.

    python -m tests.benchmarks.mesh_files [--files 2000] [--seed 0] [--damage] [--json]

Writes glTF, GLB, OBJ and PLY files with known triangles and colours (`tests.support.fuzz_meshes`), loads each with a
random unit and up axis, and compares. With --damage each is then torn or changed in a few bytes, and must load or be
refused with its name, and nothing else. Exit status 1 where something differs; a seed makes the file again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.fuzz_meshes import FORMATS, damage_is_told, make_file, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--damage", action="store_true", help="also tear each file and change bytes of it")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    outcomes: dict[str, Counter[str]] = {form: Counter() for form in FORMATS}
    features: Counter[str] = Counter()
    failures: list[dict[str, object]] = []
    for seed in range(args.seed, args.seed + args.files):
        with tempfile.TemporaryDirectory() as folder:
            made = make_file(seed, Path(folder))
            form = made.path.suffix[1:]
            found = problems(made, seed)
            if args.damage and (told := damage_is_told(made, seed)):
                found.append(f"damaged: {told}")
            features.update(made.features)
        outcomes[form]["wrong" if found else "refused by name" if made.refused else "loaded equal"] += 1
        failures += [{"seed": seed, "format": form, "text": text} for text in found]
    if args.json:
        print(json.dumps({"outcomes": outcomes, "features": features, "failures": failures}, indent=2))
    else:
        columns = ("loaded equal", "refused by name", "wrong")
        print(f"{'':8}" + "".join(f"{column:>17}" for column in columns))
        for form, counted in outcomes.items():
            print(f"{form:8}" + "".join(f"{counted[column]:>17}" for column in columns))
        print("\nwith: " + ", ".join(f"{name} {count}" for name, count in features.most_common()))
        for failure in failures:
            print(f"seed {failure['seed']} ({failure['format']}): {failure['text']}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
