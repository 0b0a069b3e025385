"""The start-up time of `nimbusctl`, beside a Python that only imports click.

    python -m tests.benchmarks.start_up [--rounds 15] [--json]

Programs, each a process of its own, all of them once a round: `python -c "import click"`, `nimbusctl --help`, what a
shell runs to complete `nimbusctl ` and `nimbusctl status --`, and `nimbusctl status` where no master listens. Prints
medians of the rounds in milliseconds, by the clock and of the processor (which a busy machine changes less), both also
as times the first program's, and the heavy packages that each had loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

HEAVY = ("numpy", "pydantic", "pyarrow", "av", "zmq", "rich", "asyncio")
_NO_MASTER = "ipc:///nonexistent/socket"
_NIMBUSCTL = "import sys; sys.argv[0] = 'nimbusctl'; from nimbusd.cli import main; main()"
_LOADED = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.__stderr__)); "


@dataclass(frozen=True, slots=True)
class Program:
    """A process to time: code for `python -c`, its arguments and what its environment has more."""

    name: str
    code: str
    args: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, before: str = "") -> str:
        """Run it to its end. before: code to run first. Returns what it wrote to standard error."""
        command = [sys.executable, "-c", before + self.code, *self.args]
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        return done.stderr


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a program."""

    program: str
    clock_ms: float
    cpu_ms: float
    times_click: float
    """By the clock."""
    cpu_times_click: float
    loaded: list[str]
    """Heavy packages."""


def completion(words: str) -> Program:
    environment = {
        "_NIMBUSCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": f"nimbusctl {words}",
        "COMP_CWORD": str(words.count(" ") + 1),
    }
    return Program(f"completion of `nimbusctl {words}`", _NIMBUSCTL, environment=environment)


PROGRAMS = (
    Program('python -c "import click"', "import click"),
    Program("nimbusctl --help", _NIMBUSCTL, ["--help"]),
    completion(""),
    completion("status --"),
    Program("nimbusctl status, no master", _NIMBUSCTL, ["status", "--master", _NO_MASTER]),
)


def measure(rounds: int) -> list[Row]:
    """Time every program once a round, so that what else the machine does slows all of them."""
    loaded = [set(program.run(_LOADED).split()) for program in PROGRAMS]
    taken: list[list[tuple[float, float]]] = [[] for _ in PROGRAMS]
    for _ in range(rounds):
        for program, of_program in zip(PROGRAMS, taken, strict=True):
            clock_s, cpu_s = time.perf_counter(), _cpu_s()
            program.run()
            of_program.append((time.perf_counter() - clock_s, _cpu_s() - cpu_s))
    medians = [tuple(1000 * statistics.median(column) for column in zip(*rows, strict=True)) for rows in taken]
    (click_ms, click_cpu_ms) = medians[0]
    return [
        Row(
            program.name,
            clock_ms,
            cpu_ms,
            clock_ms / click_ms,
            cpu_ms / click_cpu_ms,
            [name for name in HEAVY if name in modules],
        )
        for program, (clock_ms, cpu_ms), modules in zip(PROGRAMS, medians, loaded, strict=True)
    ]


def _cpu_s() -> float:
    """Processor seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'program':36} {'clock':>9} {'× click':>8} {'CPU':>9} {'× click':>8}  loaded"]
    for row in rows:
        clock = f"{row.clock_ms:6.0f} ms {row.times_click:8.2f}"
        cpu = f"{row.cpu_ms:6.0f} ms {row.cpu_times_click:8.2f}"
        lines.append(f"{row.program:36} {clock} {cpu}  {' '.join(row.loaded)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    rows = measure(args.rounds)
    print(json.dumps([asdict(row) for row in rows], indent=1) if args.json else table(rows))


if __name__ == "__main__":
    main()
