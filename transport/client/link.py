"""The client's connection to the master, and why the two sides do not agree where they don't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from nimbusd.transport.codec.codec import MessageError
from nimbusd.transport.errors import ClientError, TransportError
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import KeyPair, generate, is_key
from nimbusd.transport.sockets.addresses import socket_path
from nimbusd.transport.sockets.dealer import Dealer, Patience
from nimbusd.transport.sockets.monitor import ConnectionEvent

PATIENCE = Patience(pause_s=2.0, handshake_s=5.0, silence_s=15.0)
BROKEN_OFF_TO_BELIEVE = 3
"""Handshakes in a row that break off, after which it is for another key: one may be a master that is just dying.

Also a master that wants encryption, from a client without: whether its greeting is read before it hangs up is a race.
"""


class ClientLink:
    """A connection that keeps itself up. Made and used on the loop that runs.

    on_message, on_unreadable: as of Dealer. on_change: `connected` or `refused` is another than before. master_key: the
    master's public key in Z85; empty: nothing is encrypted, which is for ipc and, with any_local_user, for loopback
    alone. pair: this client's; None: a new one, which a master will not know.

    Raises ClientError for an address or a key that cannot be used.
    """

    def __init__(
        self,
        address: str,
        master_key: str,
        pair: KeyPair | None,
        on_message: Callable[[control.Message], None],
        on_unreadable: Callable[[MessageError], None],
        on_change: Callable[[], None],
        *,
        any_local_user: bool = False,
    ) -> None:
        if master_key and not is_key(master_key):
            raise ClientError(f"the master's key {master_key!r} is not a public key: 40 characters, as in a .pub file")
        self.tried_in_vain = asyncio.Event()
        """An attempt to connect has failed."""
        self.refused = ""
        """Why the two sides cannot agree, in words; empty while they do, or while there is nobody to agree with."""
        self._address = address
        self._encrypted = bool(master_key)
        self._broken_off = 0
        self._given_up = False
        self._on_change = on_change
        try:
            self._dealer = Dealer(
                address,
                PATIENCE,
                on_message,
                on_unreadable,
                self._connection_event,
                keys=(pair or generate()) if master_key else None,
                master_key=master_key,
                any_local_user=any_local_user,
            )
        except TransportError as error:
            raise ClientError(str(error)) from error

    @property
    def connected(self) -> bool:
        """True while requests can be sent."""
        return self._dealer.connected

    def send(self, frame: bytes) -> bool:
        """Hand a frame to the connection. False: there is none just now."""
        return self._dealer.send(frame)

    def try_again(self) -> None:
        """Connect once more after a refusal that ZeroMQ does not retry by itself."""
        if self._given_up:
            self._given_up = False
            self.refused = ""
            self._dealer.connect_again()

    def close(self) -> None:
        """Leave at once. Nothing is called back any more. Closing again does nothing."""
        self._dealer.close()

    def _connection_event(self, event: ConnectionEvent) -> None:
        before = self.refused
        self._see(event.event)
        if self.refused != before or event.event in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED):
            self._on_change()

    def _see(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.refused, self._broken_off = "", 0
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self.tried_in_vain.set()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._given_up = True
            self.refused = (
                f"the master at {self._address} does not know this client's key. "
                "Its operator lets it in by adding the public key to the master's list of authorized keys."
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._given_up = True
            self.refused = self._how_unlike()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._broken_off += 1
            if self._broken_off >= BROKEN_OFF_TO_BELIEVE:
                self.refused = self._how_unlike()

    def _how_unlike(self) -> str:
        if socket_path(self._address) is not None:
            return (
                f"the master at {self._address} hung up: it takes its own user, root, and the members of the group "
                "that it was started with (--group)"
            )
        if self._encrypted:
            return f"what listens at {self._address} does not have the master's key that was given for it"
        return f"the master at {self._address} wants encryption: give its public key, and a key of your own"
