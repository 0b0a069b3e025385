"""Escapes of others never reach a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nimbusd.cli.console import Console
from nimbusd.program.terminal import VisibleStream, visible, write_raw
from tests.support.cluster import REPOSITORY

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\x00\rc\x7f"
SHOWN = "a\\u001b[2J\\u001b]0;title\\u0007\\u009b31m\\u202eb\\u0000\\u000dc\\u007f"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PLUGIN = """\
from nimbusd.stages import PlanningFailed
from tests.support.toy import ToyPlanner

class Planner(ToyPlanner):
    def gen_sequence(self, scene, rng):
        raise PlanningFailed("un\\x1b[2Jreachable", "too \\u202efar\\x9b31m")
"""


def test_what_is_unsafe_is_written_out_and_means_the_same_in_json() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("line\n\ttab é 漢 🙂") == "line\n\ttab é 漢 🙂"
    assert json.loads(visible(json.dumps({"x": EVIL}, ensure_ascii=False))) == {"x": EVIL}
    assert visible(os.fsdecode(b"caf\xe9")) == "caf\\udce9"


def test_a_stream_takes_no_escapes_but_our_own() -> None:
    raw = io.StringIO()
    stream = VisibleStream(raw)
    print(EVIL, file=stream)
    stream.writelines([EVIL])
    write_raw(stream, "\r")  # type: ignore[arg-type]
    assert raw.getvalue() == f"{SHOWN}\n{SHOWN}\r"
    with pytest.raises(AttributeError):
        _ = stream.buffer


@pytest.mark.parametrize("width", [20, 60, 200])
def test_a_console_has_its_own_colors_only(width: int) -> None:
    raw = io.StringIO()
    console = Console(file=VisibleStream(raw), force_terminal=True, color_system="truecolor", width=width)  # type: ignore[arg-type]
    table = Table(title=EVIL)
    table.add_column(EVIL, style="red")
    table.add_row(Text(EVIL, "bold"))
    for shown in (table, Panel(EVIL), EVIL, Text(EVIL)):
        console.print(shown)
    colors = re.compile(r"\x1b\[[0-9;]*m")
    assert colors.search(raw.getvalue())
    assert not UNSAFE.search(colors.sub("", raw.getvalue()))


def shown_by(folder: Path, *args: str) -> str:
    """All that a command shows in a terminal, without its own colors and movements of the cursor."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{folder}", "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "nimbusd.cli", *args]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the last one has closed it
            break
    os.close(ours)
    process.wait(60)
    return re.sub(r"\x1b\[[0-9;]*[mAKG]|\x1b\[\?25[lh]|\r", "", said.decode(errors="surrogateescape"))


def test_jobs_files_components_and_failures_bring_no_escapes_along(tmp_path: Path) -> None:
    (tmp_path / "evil_plugin.py").write_text(PLUGIN)
    job = tmp_path / "job\x1b[2J.yaml"
    kinds = {"load": "Loader", "render": "Renderer", "store": "Writer"}
    stages = {stage: {"component": f"tests.support.toy:Toy{kind}"} for stage, kind in kinds.items()}
    values = {"name": "toy", "output": str(tmp_path / "out"), "scenes": [{"name": "a"}], "exact": False}
    plan = {"component": "evil_plugin:Planner"}
    job.write_text(json.dumps({**values, "pipeline": {**stages, "plan": plan}}))
    said = shown_by(tmp_path, "run", str(job), "--workers", "1", "--spares", "0")
    assert "un?[2Jreachable" in said
    assert "\\u001b[2K" not in said, "the progress display's own escapes are written out"
    for args in (("check", str(job), "--set", 'seed="\\e[2J"'), ("check", str(job), "--set", "\x1b]0;x\x07=1")):
        told = shown_by(tmp_path, *args)
        assert "\\u001b" in told or "\\x1b" in told
        said += told
    said += shown_by(tmp_path, "check", os.fsdecode(b"/no\xff\x9b.yaml"), "--json")
    said += shown_by(tmp_path, "show", str(tmp_path / "\x1b[2J"))
    said += shown_by(tmp_path, "no\x1b[2Jcommand")
    assert not UNSAFE.search(said), UNSAFE.findall(said)
