"""The plan of faults: a pure function from a seed to an endless sequence."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

from nimbusd.stages.errors import NimbusError


class Kind(Enum):
    """A kind of fault, and what happens to whom."""

    HANG = "hang"
    """A compute worker waits in C for ever, holding the interpreter's lock."""
    SPIN = "spin"
    """A compute worker runs round an endless loop."""
    CRASH = "crash"
    """A compute worker dies of SIGSEGV."""
    EXIT = "exit"
    """A compute worker ends in the middle of its work, with status 0."""
    OOM = "oom"
    """A compute worker takes memory until there is none, and is killed for it."""
    DISK_FULL = "disk_full"
    """A compute worker's writer finds the disk full."""
    STOP = "stop"
    """SIGSTOP of a compute worker."""
    PARTITION = "partition"
    """The network between a node and the master is cut, or swallows everything, and heals later."""
    WATCHDOG = "watchdog"
    """SIGKILL of a node's watchdog."""
    DAEMON = "daemon"
    """SIGKILL of a node's daemon, which is started again as systemd would."""
    MASTER = "master"
    """SIGKILL of the master, which is started again."""
    WRITER = "writer"
    """A writer kills its own process while it stores a piece."""
    PUBLISHER = "publisher"
    """A writer kills its own process while it publishes."""
    LIAR = "liar"
    """A node joins, takes leases, lies about their pieces, and is gone without a word."""
    ENVIRONMENT = "environment"
    """All nodes are started again with another package, and later without it."""
    LEDGER = "ledger"
    """SIGKILL of the master, which loses its ledger; it is started again, and the job is submitted again."""
    RESTORE = "restore"
    """SIGKILL of the master, whose ledger is replaced by a backup that was made a while before."""
    FOREIGN = "foreign"
    """A piece of somebody else's lies in the output, and the master is killed, so that it looks there."""
    READ_ONLY = "read_only"
    """The output is read-only for a while."""
    MOVED = "moved"
    """The output is moved away, and back later."""


IN_COMPONENTS = frozenset(
    {Kind.HANG, Kind.SPIN, Kind.CRASH, Kind.EXIT, Kind.OOM, Kind.DISK_FULL, Kind.WRITER, Kind.PUBLISHER}
)
"""Acted out by the process that works with a component, in the middle of a stage."""
OF_JOBS = frozenset({Kind.LIAR, Kind.ENVIRONMENT, Kind.LEDGER, Kind.RESTORE, Kind.FOREIGN, Kind.READ_ONLY, Kind.MOVED})
"""Done to a job that has come some way and has some way to go, one at a time."""
STAGES = ("load", "plan", "render", "store")
_STAGE_OF = {Kind.DISK_FULL: "store", Kind.WRITER: "store", Kind.PUBLISHER: "publish"}
_MOST_AFTER = 4


class FaultsUnknown(NimbusError):
    """A kind of fault that does not exist."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and its moment."""

    number: int
    kind: Kind
    delay_s: float
    """After the fault before it."""
    choice: float
    """0…1: the victim among those that are possible."""
    stage: str
    """Stage of the pipeline, for faults in components."""
    after: int
    """Beats or writes into that stage."""
    cut: bool
    """A partition that breaks connections; otherwise it swallows what is sent, and delivers it late."""
    length_s: float
    """The least duration of a fault that lasts."""


def parse_kinds(text: str) -> tuple[Kind, ...]:
    """The kinds of a list such as `hang,crash`; `all` names all. Raises FaultsUnknown."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [kind.value for kind in Kind]
    if names == ["all"]:
        return tuple(Kind)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise FaultsUnknown(f"there is no fault {name!r}{hint} There are: {', '.join(known)}, and all.")
    if not names:
        raise FaultsUnknown(f"name at least one fault of: {', '.join(known)}, or all")
    return tuple(Kind(name) for name in dict.fromkeys(names))


def plan_faults(seed: int, kinds: Sequence[Kind], *, pause_s: float, dead_after_s: float) -> Iterator[Fault]:
    """Faults without end, each kind as often as the others: every round has all of them in a new order.

    pause_s: the longest time between two. dead_after_s: the silence after which a node is given up; faults that last
    take a fifth of that to twice as long.
    """
    rng = random.Random(seed)
    number = 0
    while True:
        for kind in rng.sample(list(kinds), len(kinds)):
            yield Fault(
                number,
                kind,
                delay_s=rng.uniform(0.0, pause_s),
                choice=rng.random(),
                stage=_STAGE_OF.get(kind) or rng.choice(STAGES),
                after=rng.randrange(_MOST_AFTER),
                cut=rng.random() < 0.5,
                length_s=dead_after_s * rng.uniform(0.2, 2.0),
            )
            number += 1
