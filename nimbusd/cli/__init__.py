"""The command line `nimbusctl`. Modules of commands are imported when they are used: some load numpy and more."""

from nimbusd.cli.nimbusctl import cli, main

__all__ = ["cli", "main"]
