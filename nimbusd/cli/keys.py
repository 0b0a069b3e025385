"""`nimbusctl keygen`: a key pair for a master, a node or a person."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import click
import orjson

from nimbusd.transport.errors import TransportError
from nimbusd.transport.security.keys import generate, read_public, write_pair

_FOLDER = Path("~/.config/nimbus")


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=_FOLDER,
    show_default=True,
    help="Folder for the two files.",
)
@click.option("--name", help="Whose key it is: the name of the node, the master or the person. [default: this host's]")
@click.option("--force", is_flag=True, help="Replace files that are there. Who knew the old key must get the new one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def keygen(output: Path, name: str | None, force: bool, as_json: bool) -> None:
    """Make a CURVE key pair: NAME.key, which is secret, and NAME.pub, which others need.

    \b
    nimbusctl keygen --name alice
    nimbusctl keygen --name master --output /etc/nimbus
    """  # noqa: D301 (\b is for click: keep these lines as they are)
    try:
        secret_path, public_path = write_pair(
            generate(), output.expanduser(), name or socket.gethostname().partition(".")[0], force=force
        )
        name, key = read_public(public_path)
    except TransportError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        row = {"name": name, "public_key": key, "secret_file": str(secret_path), "public_file": str(public_path)}
        sys.stdout.write(orjson.dumps(row, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    click.echo(f"{secret_path}  secret: keep it")
    click.echo(f"{public_path}  public: {key}")
    click.echo("To let this key in, add one of these lines to the file `authorized` in the master's state folder:")
    click.echo(f"  node {name} {key}\n  admin {name} {key}")
