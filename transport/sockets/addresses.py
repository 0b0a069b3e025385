"""Addresses of masters: what they look like, and which of them may go without encryption."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from nimbusd.transport.errors import TransportError

LONGEST_SOCKET_PATH = 107
"""Bytes that the kernel takes for the path of a Unix socket."""

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\d{1,5}|\*)")
_IPC = re.compile(r"ipc://(?P<path>\S+)")


class AddressError(TransportError):
    """An address that cannot be used, or not without keys."""


def check_form(address: str) -> None:
    """Raise AddressError unless `address` is well formed."""
    tcp, ipc = _TCP.fullmatch(address), _IPC.fullmatch(address)
    if tcp is None and ipc is None:
        raise AddressError(
            f"address {address!r} is not of the form tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH; "
            "a master's usual one is tcp://HOST:7600"
        )
    if tcp is not None and tcp["port"] != "*" and int(tcp["port"]) > 65535:
        raise AddressError(f"address {address!r}: ports go up to 65535")
    if ipc is not None:
        _check_path(address, ipc["path"])


def check_address(address: str, *, encrypted: bool, any_local_user: bool = False) -> None:
    """Raise AddressError unless `address` is well formed and safe with or without encryption.

    any_local_user: whoever set this up says that all users of the machine may do everything, so that the loopback
    address needs no keys.
    """
    check_form(address)
    if encrypted or not needs_keys(address, any_local_user=any_local_user):
        return
    if is_loopback(address):
        raise AddressError(
            f"address {address} can be reached by every user of this machine and is used with keys only. Give keys (a "
            "node has them once it has joined by a token, a client by --master-key and --key), or use the master's "
            "Unix socket, ipc://PATH, which needs none; or say --allow-any-local-user: whoever is on this machine may "
            "then do everything, as the users that master and nodes run as"
        )
    raise AddressError(
        f"address {address} can be reached over the network and is used with keys only: make them by "
        "`nimbusctl keygen`, or stay on this machine by the master's Unix socket, ipc://PATH"
    )


def needs_keys(address: str, *, any_local_user: bool = False) -> bool:
    """Others than those whom file permissions let in can be at the other end, and nobody said that all of them may."""
    return not address.startswith("ipc://") and not (any_local_user and is_loopback(address))


def is_loopback(address: str) -> bool:
    """A TCP address that processes of this machine alone reach: those of all its users."""
    tcp = _TCP.fullmatch(address)
    if tcp is None:
        return False
    host = tcp["host"].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may come to mean any machine
        return False


def socket_path(address: str) -> Path | None:
    """Of an ipc address; None for others."""
    ipc = _IPC.fullmatch(address)
    return None if ipc is None else Path(ipc["path"])


def _check_path(address: str, path: str) -> None:
    if path[0] in "@*":
        raise AddressError(
            f"address {address!r} names no file, so that no permissions could guard it; ipc:// takes the path of one"
        )
    if (size := len(os.fsencode(path))) > LONGEST_SOCKET_PATH:
        raise AddressError(
            f"address {address} cannot be used: the path of a Unix socket has at most {LONGEST_SOCKET_PATH} bytes, "
            f"and this one has {size}; choose a folder with a shorter path"
        )
