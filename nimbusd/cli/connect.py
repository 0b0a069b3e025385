"""The common part of commands that talk to a master: options to find it, exit statuses, and names to complete."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import orjson
from click.shell_completion import CompletionItem

from nimbusd.client import (
    Client,
    ClientError,
    Done,
    KeyRefused,
    MasterSilent,
    MasterUnreachable,
    RequestRefused,
    VersionMismatch,
)

ENDED_BADLY, USAGE, UNREACHABLE, REFUSED = 1, 2, 3, 4
"""Exit statuses: the job failed or is incomplete; a wrong command; no master; the master says no."""
INTERRUPTED = 130
EXIT_HELP = "Exit status: 0 fine, 2 wrong usage, 3 the master cannot be reached, 4 it refuses."

_COMPLETION_S = 0.5

F = TypeVar("F", bound=Callable[..., Any])


class ClusterCommand(click.Command):
    """A command that talks to a master. Its ClientErrors become one line and an exit status."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--master"],
                metavar="ADDRESS",
                help="Where the master is [default: $NIMBUS_MASTER, else settings, else this machine].",
            ),
            click.Option(["--master-key"], metavar="KEY", help="The master's public key, or its .pub file."),
            click.Option(["--key"], metavar="FILE", help="Your own .key file, as `nimbusctl keygen` makes it."),
            click.Option(
                ["--allow-any-local-user"],
                is_flag=True,
                help="No keys on the loopback address: trust whoever listens there, as a master may that says so, too.",
            ),
            click.Option(
                ["--timeout", "timeout_s"],
                type=click.FloatRange(min=0, min_open=True),
                default=10.0,
                show_default=True,
                metavar="SECONDS",
                help="How long the master may take to answer.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = _Place.of(ctx.params)
        for name in ("master", "master_key", "key", "allow_any_local_user", "timeout_s"):
            del ctx.params[name]
        # The client logs outages; here they are lines on standard error.
        logging.basicConfig(level=logging.WARNING, format="nimbusctl: %(message)s")
        try:
            return super().invoke(ctx)
        except ClientError as error:
            away = isinstance(error, MasterUnreachable) and not isinstance(error, MasterSilent)
            hint = " Name another with --master, NIMBUS_MASTER or the settings file." if away else ""
            click.echo(f"error: {error}{hint}", err=True)
            ctx.exit(_exit_status(error))


def connect() -> Client:
    """A client to the master that the command's options name."""
    place = click.get_current_context().obj
    assert isinstance(place, _Place)
    return place.connect()


def json_option(function: F) -> F:
    """`--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")(function)


def print_json(value: object) -> None:
    """One JSON document: dataclasses as objects, without the numbers of requests."""
    document = orjson.loads(orjson.dumps(value))
    if isinstance(document, dict):
        document.pop("request", None)
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_done(done: Done, as_json: bool) -> None:
    """Print what a request did, in the master's words."""
    if as_json:
        print_json(done)
    else:
        click.echo(done.detail)


def complete_job(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of jobs, for the shell."""
    return _complete(ctx, incomplete, lambda client: {job.job: job.state for job in client.jobs()})


def complete_node(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of nodes, for the shell."""
    return _complete(ctx, incomplete, lambda client: {node.node: node.state for node in client.nodes()})


def _complete(ctx: click.Context, incomplete: str, ask: Callable[[Client], dict[str, str]]) -> list[CompletionItem]:
    names: dict[str, str] = {}
    with contextlib.suppress(ClientError), _Place.of({**ctx.params, "timeout_s": _COMPLETION_S}).connect() as client:
        names = ask(client)
    return [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True)
class _Place:
    master: str | None
    master_key: str | None
    key: str | None
    allow_any_local_user: bool
    timeout_s: float

    @classmethod
    def of(cls, params: dict[str, Any]) -> _Place:
        return cls(
            params.get("master"),
            params.get("master_key"),
            params.get("key"),
            params.get("allow_any_local_user", False),
            params["timeout_s"],
        )

    def connect(self) -> Client:
        return Client.connect(
            self.master,
            master_key=self.master_key,
            key=self.key,
            allow_any_local_user=self.allow_any_local_user,
            timeout_s=self.timeout_s,
        )


def _exit_status(error: ClientError) -> int:
    if isinstance(error, MasterUnreachable):
        return UNREACHABLE
    return REFUSED if isinstance(error, (RequestRefused, KeyRefused, VersionMismatch)) else USAGE


@contextlib.contextmanager
def interruptible(say: Callable[[], str]) -> Iterator[None]:
    """End the command at Ctrl-C with status 130 and the words of `say` on standard error, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        if text := say():
            click.echo(text, err=True)
        sys.exit(INTERRUPTED)
