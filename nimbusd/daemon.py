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
from nimbusd.config import ConfigError, MasterConfig, WorkerConfig, read_config
from nimbusd.notify import Notifier
from nimbusd.slot_options import slot_options
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.errors import TransportError

log = logging.getLogger(__name__)

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file; options go before what it says."
)
_STATE = click.option("--state", type=click.Path(path_type=Path), help="Folder of what it must not forget.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Log more.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nimbusd")
def cli() -> None:
    """The daemon of nimbusd: a master, or a worker node."""


@cli.command()
@_CONFIG
@_STATE
@click.option("--bind", multiple=True, metavar="ADDRESS", help="Address to listen on [default: tcp://127.0.0.1:7600].")
@click.option("--advertise", metavar="ADDRESS", help="Address that join tokens name [default: this host's name].")
@_VERBOSE
def master(
    config: Path | None, state: Path | None, bind: tuple[str, ...], advertise: str | None, verbose: bool
) -> None:
    """Serve jobs to nodes, and keep the ledger of every episode.

    On the loopback address, connections are not encrypted. On any other, they are: the first start makes the
    master's keys and those of its operator (admin.key) in the state folder, and nodes join with a token.

    Example: nimbusd master --bind tcp://0.0.0.0:7600
    """
    _log(verbose)
    settings = read_config(MasterConfig, config, "master", state=state, bind=bind or None, advertise=advertise)
    uvloop.run(_master(settings))


@cli.command()
@_CONFIG
@_STATE
@click.option("--master", metavar="ADDRESS", help="The master [default: the one that was joined].")
@click.option("--name", help="Name of this node, unique in the cluster [default: the host's].")
@slot_options
@click.option(
    "--join",
    "token",
    metavar="TOKEN",
    envvar="NIMBUSD_JOIN",
    show_envvar=True,
    help="Join the master that made this token, and remember it.",
)
@_VERBOSE
def worker(
    config: Path | None,
    state: Path | None,
    master: str | None,
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

    Examples: nimbusd worker --join nimbus1.hKdhZGRy…   |   nimbusd worker --master tcp://127.0.0.1:7600
    """
    _log(verbose)
    slots = {"workers": workers, "gpus": gpus, "slots_per_gpu": slots_per_gpu, "spares": spares}
    settings = read_config(WorkerConfig, config, "worker", state=state, master=master, name=name, **slots)
    uvloop.run(_worker(settings, token))


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
    from nimbusd.worker.server import WorkerServer, join

    notifier = Notifier.from_environment(os.environ)
    if token is not None:
        await join(config, token)
    server = WorkerServer(config)

    def leave() -> None:
        server.leave("asked to stop")
        notifier.stopping(server.status())

    _on_signals(leave, server.kill)
    async with notifier.telling(server.ready, server.status):
        await server.run()


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
    here = os.fstat(sys.stderr.fileno())
    journal = os.environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"
    line = "%(levelname)s %(name)s: %(message)s" if journal else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, stream=sys.stderr, format=line)


def main() -> None:
    """The entry point. Errors that nimbusd raises on purpose become one line and exit status 1; with settings that
    cannot be used it is 2, as for wrong options: starting again will not help.
    """
    faulthandler.enable()  # the service manager's watchdog ends us by SIGABRT: the log then shows every thread's stack
    try:
        cli()
    except (NimbusError, TransportError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
