"""The same seed gives the same bits: every example, in small, made in several ways, its state columns compared.

    python -m tests.benchmarks.same_bits [EXAMPLE ...] [--episodes 2] [--json]

Ways, each a `nimbusctl run` of its own: one worker; two workers, of which one may plan and the other render; memory
stirred, that is, blocks taken and given back at random all the time, by another C library's allocator settings (see
`stirred/sitecustomize.py`); and with all of AVX-512 hidden before we set anything, as on a processor that lacks it.
The last way is the control: NumPy and OpenBLAS use all that this processor has, against our setting. It shows what the
setting is for, where the processor has more than it allows; its bits may differ, and need not.

Compared byte by byte with one worker's are: the state columns of the dataset, and the plans' numbers in each episode's
record. Pictures are not. Prints a table of what differs and of the seconds that stages took. Exits with 1 if anything
differs in a way that is not the control.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nimbusd.chaos.inspection import equal_columns, published_columns
from nimbusd.makers.arithmetic import LESS, MAKER_ENVIRONMENT, maker_environment, simd
from nimbusd.replay import compare_pieces
from nimbusd.stages.store.piece import PIECES
from tests.support.front3d_house import write_house

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"width": 64, "height": 64}
_STIRRED = str(Path(__file__).parent / "stirred")
_ALLOCATOR = "glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=65536:glibc.malloc.arena_max=1"
_NO_AVX512 = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD"


def small_navigation(_folder: Path) -> list[str]:
    return [f"pipeline.plan.args.cameras=[{{name: front, hfov_rad: 1.3, {_flow(SMALL)}}}]"]


def apartment(folder: Path) -> list[str]:
    return [*small_navigation(folder), "scenes.0.count=1"]


def splats(folder: Path) -> list[str]:
    return [*apartment(folder), "pipeline.load.args.gaussians=60000"]


def front3d(folder: Path) -> list[str]:
    paths = write_house(folder / "front3d")
    scene = {"name": "house", "house": paths.house, "furniture": paths.furniture, "textures": paths.textures}
    return [*small_navigation(folder), f"scenes.0={{{_flow(scene)}}}", "randomize_every=1"]


def house(folder: Path) -> list[str]:
    """One of the apartments, as somebody's own mesh file."""
    import trimesh

    from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader

    scene = ApartmentLoader(ApartmentArgs()).load_asset(ApartmentConfig(name="house", seed=11))
    meshes: Any = trimesh.Scene()
    for thing in scene.objects:
        mesh = trimesh.Trimesh(thing.vertices, thing.faces, process=False)
        meshes.add_geometry(mesh, node_name=thing.name, geom_name=thing.name, transform=thing.T_world_object)
    path = folder / "house.glb"
    path.write_bytes(meshes.export(file_type="glb"))
    return [*small_navigation(folder), f"scenes.0={{name: house, path: {path}, up_axis: z}}"]


def manipulation(task_file: str) -> Callable[[Path], list[str]]:
    """Its tasks with small pictures, few of them."""

    def prepare(folder: Path) -> list[str]:
        tasks = yaml.safe_load((EXAMPLES / "manipulation" / task_file).read_text())
        for task in tasks["tasks"]:
            task["physics"] = {"fps": 4, "substeps": 120}
            task["cameras"] = [{**camera, **SMALL} for camera in task.get("cameras", [{"name": "front"}])]
        path = folder / task_file
        path.write_text(yaml.safe_dump(tasks))
        scenes = yaml.safe_load((EXAMPLES / _JOBS_OF[task_file]).read_text())["scenes"]
        return [f"scenes.{number}.cfg_path={path}" for number in range(len(scenes))]

    return prepare


_JOBS_OF = {
    "pick_place.yaml": "genmanip_pick_place.yaml",
    "sort_trash.yaml": "simbox_sort_trash.yaml",
    "fixtures.yaml": "simbox_fixtures.yaml",
}
PREPARED: dict[str, Callable[[Path], list[str]]] = {
    "nav_mesh": apartment,
    "nav_gs": splats,
    "nav_house": house,
    "nav_front3d": front3d,
    **{job.removesuffix(".yaml"): manipulation(tasks) for tasks, job in _JOBS_OF.items()},
}
"""Changes that make the job of each example small, given a folder for files."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a job. env: the user's. control: may differ."""

    name: str
    env: Mapping[str, str]
    options: tuple[str, ...] = ("--workers", "1")
    control: bool = False


def ways() -> list[Way]:
    """The reference first."""
    made = maker_environment(os.environ)
    hidden = {name: made[name] for name in (LESS, "OPENBLAS_CORETYPE") if name in made}
    stirred = {"PYTHONPATH": os.pathsep.join([_STIRRED, os.environ["PYTHONPATH"]])}
    return [
        Way("one worker", {}),
        Way("two workers", {}, ("--workers", "2")),
        Way("memory stirred", {**stirred, "STIR_MEMORY": "1", "GLIBC_TUNABLES": _ALLOCATOR}),
        Way("AVX-512 hidden", {**hidden, "GLIBC_TUNABLES": _NO_AVX512}),
        Way("all instructions", {**stirred, "ALL_INSTRUCTIONS": "1"}, control=True),
    ]


def run(job: Path, way: Way, output: Path, changes: list[str]) -> dict[str, float]:
    """Run a job in one of the ways; returns the seconds of its stages. Raises RuntimeError if it is not complete."""
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(job), "--output", str(output), "--spares", "0", "--json"]
    command += [*way.options, *[part for change in changes for part in ("--set", change)]]
    ours = {*maker_environment({})} - MAKER_ENVIRONMENT.keys()
    env = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(command, env={**env, **way.env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{job.name}, {way.name}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    seconds: Counter[str] = Counter()
    for event in map(json.loads, done.stdout.splitlines()):
        if event["event"] == "episode_committed":
            seconds.update(event["timings_s"])
    return dict(seconds)


def differences(one: Path, other: Path) -> list[str]:
    """The differences between two outputs of a job but for pictures, as short sentences."""
    same = equal_columns(published_columns(one), published_columns(other))
    said = set() if same else {"the dataset's state columns differ"}
    ours, theirs = (_pieces(output) for output in (one, other))
    said |= {f"{key}: made by one alone" for key in ours.keys() ^ theirs.keys()}
    for key in ours.keys() & theirs.keys():
        compared = compare_pieces((one, ours[key]), (other, theirs[key]))
        said |= {f"{key}: {difference}" for difference in compared.differences if not difference.media}
    return sorted(said)


def compare(
    name: str, episodes: int, folder: Path, chosen: list[Way] | None = None, others: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Make an example in all ways. Yields a row for each: what differs from the first, and its seconds.

    others: changes to its job beside those that make it small.
    """
    changes = [f"episodes_per_scene={episodes}", *PREPARED[name](folder), *others]
    chosen = chosen or ways()
    outputs = [folder / f"{name}-{number}" for number in range(len(chosen))]
    for way, output in zip(chosen, outputs, strict=True):
        seconds = run(EXAMPLES / f"{name}.yaml", way, output, changes)
        differ = differences(outputs[0], output)
        columns: Any = published_columns(output)
        size = f"{columns.num_rows} x {columns.num_columns}"
        row = {"job": name, "way": way.name, "control": way.control, "columns": size, "differ": differ}
        yield {**row, **seconds}


def _pieces(output: Path) -> dict[str, str]:
    """Folder of each piece by its episode, whatever the attempt."""
    return {path.name.rpartition(".")[0]: path.name for path in (output / PIECES).iterdir()}


def _line(row: Mapping[str, Any]) -> str:
    plan_s, all_s = row.get("plan", 0.0), sum(value for value in row.values() if isinstance(value, float))
    differ = f"{len(row['differ'])} things, such as {row['differ'][-1]}" if row["differ"] else "nothing"
    return f"{row['job']:<22}{row['way']:<18}{row['columns']:>10}{plan_s:>9.2f}{all_s:>9.1f}  {differ}"


def _flow(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", default=[*PREPARED], metavar="EXAMPLE")
    parser.add_argument("--episodes", type=int, default=2, help="of each scene")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if unknown := {*args.examples} - {*PREPARED}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PREPARED)}")
    found = [name for name in simd().found if name not in simd().shared]
    rows = []
    if not args.json:
        print(f"beyond what makers use, this processor has: {', '.join(found) or 'nothing'}")
        print(f"{'example':<22}{'way':<18}{'columns':>10}{'plan, s':>9}{'all, s':>9}  differs in")
    for name in args.examples:
        with tempfile.TemporaryDirectory(prefix="same-bits-") as folder:
            for row in compare(name, args.episodes, Path(folder)):
                rows.append(row)
                if not args.json:
                    print(_line(row), flush=True)
    if args.json:
        print(json.dumps({"beyond": found, "rows": rows}))
    sys.exit(any(row["differ"] and not row["control"] for row in rows))


if __name__ == "__main__":
    main()
