"""Peers that speak bytes over TCP or a Unix socket, or as much of ZMTP 3 as they like."""

from __future__ import annotations

import asyncio
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
READY = b"\x04\x19\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY = b"\x04" + bytes([len(READY) - 2]) + READY[2:]


def frame(data: bytes, *, flags: int = 0, announced: int | None = None) -> bytes:
    """A frame of ZMTP. flags: 1 for more to come. announced: the size that it claims."""
    return struct.pack(">BQ", flags | 2, len(data) if announced is None else announced) + data


class RawPeer:
    """A connection to a listener's port or Unix socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, address: str) -> RawPeer:
        """Connect, and say nothing yet."""
        if address.startswith("ipc://"):
            return cls(*await asyncio.open_unix_connection(address.removeprefix("ipc://")))
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    @classmethod
    async def shaken_hands(cls, address: str) -> RawPeer:
        """Connect as a DEALER without encryption."""
        peer = await cls.connect(address)
        peer.write(GREETING + READY)
        await peer.read_exactly(len(GREETING))
        flags, size = await peer.read_exactly(2)
        assert flags == 4, "expected a short command"
        await peer.read_exactly(size)
        return peer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the other side has taken most of it."""
        await self._writer.drain()

    async def read_exactly(self, size: int) -> bytes:
        async with asyncio.timeout(20):
            return await self._reader.readexactly(size)

    async def closed_by_the_other_side(self) -> None:
        """Wait for it."""
        try:
            async with asyncio.timeout(20):
                while await self._reader.read(65536):
                    pass
        except ConnectionResetError:
            pass
        self.close()

    def close(self) -> None:
        self._writer.close()
