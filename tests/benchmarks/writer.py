"""Frames per second of `NavWriter`, beside LeRobot's own writer on the same frames in the same run.

    python -m tests.benchmarks.writer [--lerobot-python PYTHON] [--json]

What is timed: from frames in memory to a finished, loadable LeRobot v3.0 dataset on disk (encoding, statistics,
metadata; ours also with checksums and fsync), without starting Python or imports. The writers take turns, each
round in another order; the table shows medians. LeRobot runs with four image writer threads, as it recommends.
Video is AV1 (SVT-AV1) at crf 30 with 2 frames per key frame for all. LeRobot leaves the preset to
the SVT-AV1 of its environment, whose default has changed between versions; NavWriter takes 12. The last columns say
whether size and quality are the same; the row "preset 8" is NavWriter with a slower, better preset.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages import CameraFrames, Feature, Observation
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.writers.nav import NavWriter, NavWriterArgs
from nimbusd.stages.types import U8
from tests.support.store_makers import JOB, make_episode, make_sequence, textured_frames

_SLOW_PRESET = "8"
_CHILD = Path(__file__).with_name("lerobot_writer.py")
_FPS = 30


@dataclass
class Contender:
    """A writer in one mode. seconds: of each round. kind: `ours` or `lerobot`."""

    name: str
    kind: str
    media: str
    preset: str | None = None
    seconds: list[float] = field(default_factory=list)
    size_bytes: int = 0
    psnr_db: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", metavar="PYTHON", help="interpreter of an environment with lerobot 0.4")
    parser.add_argument("--frames", type=int, default=150, help="frames per episode (default 150)")
    parser.add_argument("--episodes", type=int, default=2, help="episodes per round (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which medians are shown (default 5)")
    parser.add_argument("--size", default="320x240", help="WIDTHxHEIGHT (default 320x240)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    width, height = (int(part) for part in args.size.split("x"))
    frames = textured_frames(args.frames, height, width)
    contenders = [
        Contender("NavWriter", "ours", "video"),
        Contender(f"NavWriter, preset {_SLOW_PRESET}", "ours", "video", _SLOW_PRESET),
        Contender("NavWriter", "ours", "image"),
    ]
    if args.lerobot_python:
        contenders += [Contender("lerobot", "lerobot", media) for media in ("video", "image")]
    with tempfile.TemporaryDirectory(prefix="nimbusd-writer-") as folder:
        for turn in range(args.rounds):
            start = turn % len(contenders)
            for contender in contenders[start:] + contenders[:start]:
                run(contender, frames, args.episodes, args.lerobot_python, Path(folder))
    rows = results(contenders, args.frames * args.episodes)
    if args.json:
        print(json.dumps({"size": args.size, "frames": args.frames, "episodes": args.episodes, "writers": rows}))
    else:
        print(f"{args.episodes} episodes of {args.frames} frames, {args.size}, one camera, {args.rounds} rounds\n")
        print(table(rows))


def run(contender: Contender, frames: U8, episodes: int, lerobot_python: str | None, folder: Path) -> None:
    """One round of one writer."""
    root = folder / "out"
    states = make_sequence(len(frames)).states["observation.state"].values.astype(np.float32)
    if contender.kind == "ours":
        contender.seconds.append(run_ours(contender, frames, states, episodes, root))
        dataset = root / "dataset"
    else:
        assert lerobot_python is not None
        np.save(folder / "frames.npy", frames)
        np.save(folder / "states.npy", states)
        command = [lerobot_python, _CHILD, folder / "frames.npy", folder / "states.npy", root, contender.media]
        command += [episodes, _FPS]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the lerobot writer failed ({contender.media}):\n{done.stderr[-3000:]}")
        contender.seconds.append(float(json.loads(done.stdout.splitlines()[-1])["seconds"]))
        dataset = root
    pixel_files = list(dataset.resolve().glob("videos/**/*.mp4" if contender.media == "video" else "data/**/*.parquet"))
    contender.size_bytes = sum(path.stat().st_size for path in pixel_files)
    if contender.media == "video":
        contender.psnr_db = psnr_db(frames, pixel_files[0])
    shutil.rmtree(root)


def run_ours(contender: Contender, frames: U8, states: Any, episodes: int, root: Path) -> float:
    """Seconds for storing `episodes` one after another and publishing them."""
    _, height, width, _ = frames.shape
    seq = replace(
        make_sequence(len(frames), fps=_FPS, size=(height, width), task="turn"),
        states={"observation.state": Feature(states)},
        actions={"action": Feature(states)},
    )
    obs = Observation({"front": CameraFrames(frames)})
    media: Any = contender.media
    start = time.perf_counter()
    writer = NavWriter(NavWriterArgs(media=media, preset=contender.preset))
    pieces = [writer.save_data(seq, obs, make_episode(root, index, seq=seq)) for index in range(episodes)]
    writer.publish(root, pieces, JOB, final=True)
    seconds = time.perf_counter() - start
    assert open_dataset(root).episodes == episodes
    return seconds


def psnr_db(frames: U8, video: Path) -> float:
    """Peak signal-to-noise ratio of the first episode in a video."""
    import av

    error: list[float] = []
    with av.open(str(video)) as container:
        for shown, original in zip(container.decode(video=0), frames, strict=False):
            difference = shown.to_ndarray(format="rgb24").astype(np.float64) - original
            error.append(float((difference**2).mean()))
    return float(10 * np.log10(255**2 / np.mean(error)))


def results(contenders: list[Contender], frames: int) -> list[dict[str, Any]]:
    rates = {id(c): frames / statistics.median(c.seconds) for c in contenders}
    peers = {c.media: rates[id(c)] for c in contenders if c.kind == "lerobot"}
    return [
        {
            "writer": c.name,
            "media": c.media,
            "frames_per_s": round(rates[id(c)], 1),
            "fastest": round(frames / min(c.seconds), 1),
            "slowest": round(frames / max(c.seconds), 1),
            "times_lerobot": round(rates[id(c)] / peers[c.media], 2) if c.media in peers else None,
            "kb_per_frame": round(c.size_bytes / frames / 1000, 2),
            "psnr_db": None if c.psnr_db is None else round(c.psnr_db, 2),
        }
        for c in contenders
    ]


def table(rows: list[dict[str, Any]]) -> str:
    header = ["writer", "media", "frames/s", "slowest…fastest", "x lerobot", "kB/frame", "PSNR dB"]
    lines = [header]
    for row in rows:
        spread = f"{row['slowest']}…{row['fastest']}"
        cells = [row["writer"], row["media"], row["frames_per_s"], spread]
        cells += [row["times_lerobot"], row["kb_per_frame"], row["psnr_db"]]
        lines.append(["-" if cell is None else str(cell) for cell in cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


if __name__ == "__main__":
    main()
