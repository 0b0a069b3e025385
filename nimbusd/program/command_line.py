"""The end of `nimbusd` and `nimbusctl`: an expected error is a sentence and an exit status.

Only an error that nobody foresaw has a traceback, with a line that asks for a report.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence

import click

from nimbusd import __version__
from nimbusd.program.streams import StreamLost, discard_output, open_standard_streams
from nimbusd.program.terminal import guard_output

FAILED, SETTINGS = 1, 2
INTERRUPTED = 130
OUTPUT_BROKEN = 141
"""The status of a program that SIGPIPE ended."""

_ADVICE = {
    errno.ENOSPC: "Make room on its disk.",
    errno.EDQUOT: "Make room: your share of its disk is used up.",
    errno.EACCES: "Have its owner permit it, or name another.",
    errno.EPERM: "Have its owner permit it, or name another.",
    errno.EROFS: "Name another, or have its file system mounted for writing.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
}


class Commands(click.Group):
    """A group of commands that knows what a misspelt one may have meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name[:1].isalnum() and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            from difflib import get_close_matches  # here: `--help` is to be there at once

            near = get_close_matches(name, self.list_commands(ctx), n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"There is no command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


def run_program(program: click.Group, name: str) -> None:
    """Run the command that the command line names, and exit."""
    open_standard_streams()
    guard_output()
    status = ended(program, name, sys.argv[1:])
    try:
        sys.stdout.flush()
    except StreamLost as error:
        status = _stream_lost(error)
    sys.exit(status)


def ended(program: click.Group, name: str, args: Sequence[str]) -> int:
    """Run a command, print its error if it has one, and return the exit status."""
    try:
        value = program.main(list(args), prog_name=name, standalone_mode=False)
    except SystemExit as error:
        return _status(error)
    except click.Abort as error:
        return INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - it is printed, with its traceback if nobody foresaw it
        return _failed(error)
    except BaseExceptionGroup as error:
        return INTERRUPTED if error.subgroup(KeyboardInterrupt) is not None else _failed(error)
    return value if isinstance(value, int) else 0


def _status(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    click.echo(error.code, err=True)
    return FAILED


def _failed(error: BaseException) -> int:
    """Tell the error, or the errors of a group."""
    leaves = list(_leaves(error))
    lost = next((leaf for leaf in leaves if isinstance(leaf, StreamLost)), None)
    if lost is not None and len(leaves) == 1:
        return _stream_lost(lost)
    sentences = dict.fromkeys(_sentence(leaf) for leaf in leaves)
    if None in sentences:
        import traceback

        traceback.print_exception(error)
        click.echo(
            f"error: nimbusd {__version__} did not foresee this. Please report it, with the lines above and with what "
            "you ran, to those who maintain it.",
            err=True,
        )
        return FAILED
    for sentence in sentences:
        click.echo(f"error: {sentence}", err=True)
    return SETTINGS if all(map(_is_of_settings, leaves)) else FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group and of the groups in it; of another error, that."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _sentence(error: BaseException) -> str | None:
    """The error for people; None for one that nobody foresaw."""
    # Imported when there is an error, as are the settings below, which load pydantic.
    from nimbusd.stages.errors import NimbusError
    from nimbusd.transport.errors import TransportError

    if isinstance(error, (NimbusError, TransportError, StreamLost)):
        return str(error)
    # Without a number it is not the system's, and a descriptor that is closed is a fault of ours, too.
    if isinstance(error, OSError) and error.errno not in (None, 0, errno.EBADF):
        return _os_sentence(error)
    return None


def _os_sentence(error: OSError) -> str:
    """`PLACE: what is wrong. What to do.`, as far as the error says."""
    places = [os.fspath(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    where = " and ".join(os.fsdecode(place) for place in places)
    what = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "")
    return f"{where}: {what}. {advice}".rstrip() if where else f"{what}. {advice}".rstrip()


def _is_of_settings(error: BaseException) -> bool:
    """True where starting again cannot help until somebody changes what the program was given."""
    from nimbusd.config import ConfigError
    from nimbusd.transport.security.auth import AllowListError
    from nimbusd.transport.security.keys import KeyFileError
    from nimbusd.transport.security.tokens import TokenError
    from nimbusd.transport.sockets.addresses import AddressError

    return isinstance(error, (ConfigError, AddressError, AllowListError, KeyFileError, TokenError))


def _stream_lost(error: StreamLost) -> int:
    """End quietly where the reader of our output has gone; else say what is wrong with it."""
    discard_output()
    if error.broken:
        return OUTPUT_BROKEN
    click.echo(f"error: {error}", err=True)
    return FAILED
