"""Addresses of masters: what they look like, and which of them may go without encryption."""

from __future__ import annotations

import ipaddress
import re

from nimbusd.transport.errors import TransportError

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\d{1,5}|\*)")
_IPC = re.compile(r"ipc://\S+")


class AddressError(TransportError):
    """An address that cannot be used, or not without keys."""


def check_address(address: str, *, encrypted: bool) -> None:
    """Raise AddressError unless `address` is well formed and safe with or without encryption."""
    tcp = _TCP.fullmatch(address)
    if tcp is None and not _IPC.fullmatch(address):
        raise AddressError(
            f"address {address!r} is not of the form tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH; "
            "a master's usual one is tcp://HOST:7600"
        )
    if tcp is not None and tcp["port"] != "*" and int(tcp["port"]) > 65535:
        raise AddressError(f"address {address!r}: ports go up to 65535")
    if not encrypted and not is_private(address):
        raise AddressError(
            f"address {address} can be reached over the network and is used with keys only: make them by "
            "`nimbusctl keygen`, or stay on this machine by tcp://127.0.0.1:PORT or ipc://PATH"
        )


def is_private(address: str) -> bool:
    """Only processes of this machine can be at the other end."""
    if address.startswith("ipc://"):
        return True
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
