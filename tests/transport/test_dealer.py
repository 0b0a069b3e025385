"""The connection that nodes and clients share, against a ROUTER that says what a master never does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from nimbusd.transport.codec import MessageError, VersionError
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control as c
from nimbusd.transport.sockets.addresses import AddressError
from nimbusd.transport.sockets.dealer import Dealer, Patience
from tests.support.linked_peers import ANSWER, MASTER_KEYS, Waiter, on_uvloop

PATIENCE = Patience(pause_s=1.0, handshake_s=20.0, silence_s=20.0)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[tuple[zmq.Socket[bytes], str]]:
    """A ROUTER and its address."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        address = f"ipc://{tmp_path}/s"
        socket.bind(address)
        yield socket, address


class Connection:
    """A dealer that remembers what it heard."""

    def __init__(self, address: str) -> None:
        self.messages: list[c.Message] = []
        self.unreadable: list[MessageError] = []
        self.changes = Waiter()
        self.dealer = Dealer(address, PATIENCE, self._got, self._puzzled, lambda _: self.changes.notify())

    def _got(self, message: c.Message) -> None:
        self.messages.append(message)
        self.changes.notify()

    def _puzzled(self, error: MessageError) -> None:
        self.unreadable.append(error)
        self.changes.notify()


@on_uvloop
async def test_nothing_is_sent_before_there_is_a_connection(tmp_path: Path) -> None:
    connection = Connection(f"ipc://{tmp_path}/nobody")
    assert not connection.dealer.connected
    assert not connection.dealer.send(b"lost")
    connection.dealer.close()
    connection.dealer.close()


def test_what_is_none_of_ours_is_told_apart_from_another_version(router: tuple[zmq.Socket[bytes], str]) -> None:
    socket, address = router

    @on_uvloop
    async def talk() -> None:
        connection = Connection(address)
        await connection.changes.until(lambda: connection.dealer.connected)
        assert connection.dealer.send(b"hello")
        route, _ = socket.recv_multipart()
        frame = c.encode(ANSWER)
        socket.send_multipart([route, frame, frame])
        socket.send_multipart([route, msgpack.packb({"v": -1, "t": "Welcome", "b": {}})])
        socket.send_multipart([route, frame])
        await connection.changes.until(lambda: bool(connection.messages))
        assert connection.messages == [ANSWER]
        assert [isinstance(error, VersionError) for error in connection.unreadable] == [False, True]
        connection.dealer.close()

    talk()


@on_uvloop
async def test_an_address_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(AddressError, match="keys only"):
        Connection("tcp://192.0.2.1:7600")
    with pytest.raises(TransportError, match="cannot connect to tcp://a\\$b:7600"):
        Dealer("tcp://a$b:7600", PATIENCE, print, print, print, keys=MASTER_KEYS, master_key=MASTER_KEYS.public)
