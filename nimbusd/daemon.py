"""`nimbusd master` and `nimbusd worker`: the daemon, one program for both roles."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import uvloop

from nimbusd import __version__
from nimbusd.config import MasterConfig, WorkerConfig, read_config
from nimbusd.program import Commands, run_program
from nimbusd.program.slot_options import slot_options
from nimbusd.program.systemd import Notifier
from nimbusd.supervisor.orphans import adopt_orphans

log = logging.getLogger(__name__)

_JOIN = "NIMBUSD_JOIN"
_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file; options go before what it says."
)
_STATE = click.option("--state", type=click.Path(path_type=Path), help="Folder of what it must not forget.")
_ANY_LOCAL_USER = click.option(
    "--allow-any-local-user",
    is_flag=True,
    default=None,
    help="No keys on the loopback address: whoever is on this machine may do everything.",
)
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Log more.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nimbusd")
def cli() -> None:
    """The daemon of nimbusd: a master, or a worker node."""


@cli.command()
@_CONFIG
@_STATE
@click.option("--bind", multiple=True, metavar="ADDRESS", help="Address to listen on [default: a Unix socket].")
@click.option("--group", metavar="NAME", help="Let the members of this group use the Unix socket, too.")
@_ANY_LOCAL_USER
@click.option("--advertise", metavar="ADDRESS", help="Address that join tokens name [default: this host's name].")
@_VERBOSE
def master(
    config: Path | None,
    state: Path | None,
    bind: tuple[str, ...],
    group: str | None,
    allow_any_local_user: bool | None,
    advertise: str | None,
    verbose: bool,
) -> None:
    """Serve jobs to nodes, and keep the ledger of every episode.

    Without --bind it listens on a Unix socket, which its own user and root may use, and the members of --group.
    Commands and nodes on this machine find it by themselves. TCP addresses are encrypted: the first start makes the
    master's keys and those of its operator (admin.key) in the state folder, and nodes join with a token.

    Example: nimbusd master --bind tcp://0.0.0.0:7600
    """
    _log(verbose)
    given = {"state": state, "bind": bind or None, "group": group, "advertise": advertise}
    settings = read_config(MasterConfig, config, "master", **given, allow_any_local_user=allow_any_local_user)
    uvloop.run(_master(settings))


@cli.command()
@_CONFIG
@_STATE
@click.option("--master", metavar="ADDRESS", help="The master [default: the one that was joined, else this machine's].")
@_ANY_LOCAL_USER
@click.option("--name", help="Name of this node, unique in the cluster [default: the host's].")
@slot_options
@click.option(
    "--join",
    "token",
    metavar="TOKEN",
    envvar=_JOIN,
    show_envvar=True,
    help="Join the master that made this token, and remember it. -: read it from standard input, where other users do "
    "not see it.",
)
@_VERBOSE
def worker(
    config: Path | None,
    state: Path | None,
    master: str | None,
    allow_any_local_user: bool | None,
    name: str | None,
    workers: int | None,
    gpus: tuple[int, ...] | None,
    slots_per_gpu: int | None,
    spares: int | None,
    token: str | None,
    verbose: bool,
) -> None:
    """Work on the jobs of a master.

    The first SIGTERM or Ctrl-C finishes what has begun and gives the rest back; a second one stops at once.

    Examples: nimbusd worker   |   nimbusd worker --join nimbus1.hKdhZGRy…
    """
    _log(verbose)
    slots = {"workers": workers, "gpus": gpus, "slots_per_gpu": slots_per_gpu, "spares": spares}
    given = {"state": state, "master": master, "allow_any_local_user": allow_any_local_user, "name": name}
    settings = read_config(WorkerConfig, config, "worker", **given, **slots)
    uvloop.run(_worker(settings, sys.stdin.readline().strip() if token == "-" else token))


async def _master(config: MasterConfig) -> None:
    from nimbusd.master.server import MasterServer

    notifier = Notifier.from_environment(os.environ)
    server = MasterServer(config)

    def leave() -> None:
        notifier.stopping("writing what is in flight")
        server.leave()

    _on_signals(leave, _end)
    async with notifier.telling(server.ready, server.status, server.check):
        await server.run()


async def _worker(config: WorkerConfig, token: str | None) -> None:
    from nimbusd.node.joining import join
    from nimbusd.node.networked import NetworkedNode

    notifier = Notifier.from_environment(os.environ)
    if token is not None:
        os.environ.pop(_JOIN, None)  # components need not know it
        await join(config, token)
    node = NetworkedNode(config)

    def leave() -> None:
        node.leave("asked to stop")
        notifier.stopping(node.status())

    _on_signals(leave, node.kill)
    async with notifier.telling(node.ready, node.status):
        await node.run()


def _end() -> None:
    """End this process at once. The ledger is made for that: what it has not acknowledged did not happen."""
    log.warning("asked to stop a second time: ending at once")
    os._exit(1)


def _on_signals(first: Callable[[], object], again: Callable[[], object]) -> None:
    """SIGTERM and SIGINT: `first`, and from the second one on `again`."""
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        (first if asked == 1 else again)()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _log(verbose: bool) -> None:
    """One event a line on standard error; the time is added unless the journal reads it, which adds it itself."""
    here = os.fstat(2)
    journal = os.environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"
    line = "%(levelname)s %(name)s: %(message)s" if journal else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, stream=sys.stderr, format=line)


def main() -> None:
    """The entry point. With settings that cannot be used the exit status is 2, as for wrong options: starting again
    will not help.
    """
    adopt_orphans()
    # The service manager's watchdog ends us by SIGABRT: the log then shows every thread's stack.
    faulthandler.enable(file=2)
    run_program(cli, "nimbusd")
