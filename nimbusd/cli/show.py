"""`nimbusctl show DATASET`: a dataset in numbers, and a picture of what is in it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
import orjson
from rich.markup import escape
from rich.table import Table

from nimbusd.cli.console import make_console
from nimbusd.core.words import counted
from nimbusd.show import Summary, draw_sheet, episode_view, sample, summarize
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.read import open_dataset

_SHOWN_TASKS = 5


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("contact_sheet.png"),
    show_default=True,
    help="Where the contact sheet goes (PNG).",
)
@click.option(
    "--episodes", type=click.IntRange(0), default=3, show_default=True, help="Episodes on the sheet; 0: none."
)
@click.option("--camera", help="Camera on the sheet; the first by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def show(dataset: Path, output: Path, episodes: int, camera: str | None, as_json: bool) -> None:
    """Sum up a DATASET (or a job's output folder) and draw a contact sheet of some of its episodes."""
    try:
        opened = open_dataset(dataset)
        summary = summarize(opened)
        chosen = camera or next(iter(opened.cameras), "") if opened.episodes else ""
        if camera and camera not in summary.cameras:
            raise click.UsageError(f"there is no camera '{camera}'; there are: {', '.join(summary.cameras)}")
        views = [episode_view(opened, index, chosen) for index in sample(opened.episodes, episodes) if chosen]
    except NimbusError as error:
        raise click.ClickException(str(error)) from error

    sheet = None
    if views:
        output.parent.mkdir(parents=True, exist_ok=True)
        facts = (
            f"{summary.format} · {counted(summary.episodes, 'episode')} · {counted(summary.frames, 'frame')}"
            f" at {summary.fps:g} fps · {counted(len(summary.scenes), 'scene')}"
        )
        draw_sheet(_name(opened.root, dataset), facts, views).save(output, format="PNG")
        sheet = str(output)
    if as_json:
        row = {**asdict(summary), "contact_sheet": sheet}
        sys.stdout.write(orjson.dumps(row, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    console = make_console(soft_wrap=True)
    console.print(_table(summary))
    if sheet:
        console.print(f"Contact sheet: {escape(sheet)}")


def _name(root: Path, given: Path) -> str:
    """Name a dataset: the folder that the user named, or the one around a plain `dataset`."""
    given = given.absolute()
    return given.parent.name if given.name == "dataset" else given.name or root.name


def _table(summary: Summary) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    tasks = sorted(summary.tasks.items(), key=lambda item: (-item[1], item[0]))
    rows = {
        "dataset": summary.path,
        "format": f"{summary.format}, {summary.fps:g} fps",
        "episodes": f"{summary.episodes} in {counted(len(summary.scenes), 'scene')}" + _failed(summary.failures),
        "frames": f"{summary.frames} ({summary.duration_s:.1f} s); "
        f"{summary.shortest_frames} to {summary.longest_frames} per episode",
        "cameras": ", ".join(f"{name} {width}x{height}" for name, (width, height) in summary.cameras.items()),
        "size": f"{summary.size_bytes / 1e6:.1f} MB",
        "features": "\n".join(f"{key}: {kind}" for key, kind in summary.features.items()),
        "tasks": "\n".join(f"{count} x {task}" for task, count in tasks[:_SHOWN_TASKS])
        + (f"\n… {len(tasks) - _SHOWN_TASKS} more" if len(tasks) > _SHOWN_TASKS else ""),
        "packages": "\n".join(line.removeprefix("made with ") for line in summary.made_with),
        "warnings": "\n".join(summary.warnings),
    }
    for key, text in rows.items():
        if text:
            table.add_row(key, escape(text))
    return table


def _failed(failures: dict[str, int]) -> str:
    if not failures:
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(failures.items()))
    return f", of them {sum(failures.values())} failed attempts ({reasons}), the last ones"
