"""Find out that nobody listens at an address. ZeroMQ tries for ever, and does not say why an attempt failed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from nimbusd.transport.sockets.addresses import socket_path
from nimbusd.transport.sockets.places import why_unreachable

_PATIENCE_S = 2.0


async def why_nobody_listens(address: str) -> str:
    """The reason why nobody can connect to `address`, as a part of a sentence; empty: one can, or perhaps.

    A machine that says nothing at all, as behind a firewall, may be slow or on its way up: that is no answer.
    """
    if (path := socket_path(address)) is not None:
        return why_unreachable(path)
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return ""
    except socket.gaierror as error:
        return f"the name {host} leads nowhere ({error.strerror})"
    except ConnectionRefusedError:
        return "the connection was refused"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""
