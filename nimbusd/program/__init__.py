"""The common part of `nimbusd` and `nimbusctl`: commands, exit statuses, streams, systemd, and the state folder.

Only the command line is exported: the rest, of the daemons, loads pydantic and asyncio.
"""

from nimbusd.program.command_line import Commands, ended, run_program

__all__ = ["Commands", "ended", "run_program"]
