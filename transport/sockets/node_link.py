"""A node's connection to the master, in words that its log can show; and how a node has its key made known there."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

import zmq

from nimbusd.transport.codec import MessageError, VersionError
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import KeyPair, is_key
from nimbusd.transport.security.tokens import JoinToken
from nimbusd.transport.sockets.addresses import check_address, needs_keys, socket_path
from nimbusd.transport.sockets.dealer import FIRST_PAUSE_S, Dealer, Patience
from nimbusd.transport.sockets.monitor import ConnectionEvent
from nimbusd.transport.sockets.places import why_unreachable
from nimbusd.transport.sockets.sparse_log import SparseLog

log = logging.getLogger(__name__)


LAST_RETRY_S = 5.0
PATIENCE = Patience(pause_s=LAST_RETRY_S, handshake_s=15.0, silence_s=10.0)


def _ignore() -> None:
    pass


class NodeLink:
    """A node's connection to the master, which is made again at first after 0.1 s and then up to 5 s.

    Belongs to the running loop. on_connected: the handshake succeeded; the master knows nothing of this connection yet,
    so say Hello. on_disconnected: the connection broke; what was queued on it is lost. on_trouble: why there is no
    connection, or no understanding, as a sentence; called when the reason changes. All are called in the loop.

    counters: received, sent, unsent (no connection, or the master reads too slowly), malformed.
    """

    def __init__(
        self,
        address: str,
        on_message: Callable[[control.Message], None],
        *,
        on_connected: Callable[[], None] = _ignore,
        on_disconnected: Callable[[], None] = _ignore,
        on_trouble: Callable[[str], None] = log.warning,
        keys: KeyPair | None = None,
        master_key: str = "",
        any_local_user: bool = False,
    ) -> None:
        """Begin to connect. keys: our own; master_key: the one that the master must prove to have. any_local_user: on
        the loopback address there are none, and whoever listens there is trusted.

        Raises AddressError for an address that is malformed or needs keys.
        """
        check_address(address, encrypted=keys is not None, any_local_user=any_local_user)
        encrypted = needs_keys(address, any_local_user=any_local_user)
        if encrypted and not is_key(master_key):
            raise TransportError(f"the master at {address} can be trusted by its public key alone, and none is given")
        self.counters: Counter[str] = Counter()
        self.trouble = ""
        """The reason why there is no connection; empty: there is one, or it is being made."""
        self.key_refused = False
        """The last trouble was that the master does not know our key."""
        self._address = address
        self._keys = keys if encrypted else None
        self._master_key = master_key
        self._on_message = on_message
        self._on_connected, self._on_disconnected, self._on_trouble = on_connected, on_disconnected, on_trouble
        self._shook_hands = False
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = FIRST_PAUSE_S
        self._loop = asyncio.get_running_loop()
        self._sparse = SparseLog(log, self._loop.time)
        self._dealer = Dealer(
            address,
            PATIENCE,
            self._received,
            self._unreadable,
            self._connection_event,
            keys=self._keys,
            master_key=master_key,
            any_local_user=any_local_user,
        )

    @property
    def connected(self) -> bool:
        """True while messages can be sent."""
        return self._dealer.connected

    def send(self, message: control.Message) -> bool:
        """Queue a message; never waits. False: it is dropped, because there is no connection or the queue is full.

        Raises MessageError for a message that is too large.
        """
        sent = self._dealer.send(control.encode(message))
        self.counters["sent" if sent else "unsent"] += 1
        return sent

    def close(self, linger_s: float = 0.5) -> None:
        """Leave; what is queued has linger_s to go out, for which this waits."""
        if self._retry is not None:
            self._retry.cancel()
        self._dealer.close(linger_s)

    def _received(self, message: control.Message) -> None:
        self.counters["received"] += 1
        self._on_message(message)

    def _unreadable(self, error: MessageError) -> None:
        self.counters["received"] += 1
        if isinstance(error, VersionError):
            self._say(f"the master at {self._address} cannot be understood: {error}")
            return
        self.counters["malformed"] += 1
        self._sparse.warn("malformed", "dropped a message of the master at %s: %s", self._address, error)

    def _connection_event(self, event: ConnectionEvent) -> None:
        if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._shook_hands, self.key_refused, self.trouble = True, False, ""
            self._retry_s = FIRST_PAUSE_S
            self._on_connected()
        elif event.failed:
            self._shook_hands = True
            self.key_refused = event.event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self._say(self._handshake_trouble(event))
            if event.event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and self._retry is None:
                # ZeroMQ gives up after these. We don't: somebody may add our key, or start the right master.
                self._retry = self._loop.call_later(self._retry_s, self._connect_again)
                self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        elif event.event == zmq.EVENT_DISCONNECTED:
            self._on_disconnected()
        elif event.event == zmq.EVENT_CONNECT_RETRIED:
            if not self._shook_hands:
                self._say(self._connection_trouble())
            self._shook_hands = False

    def _connect_again(self) -> None:
        self._retry = None
        self._dealer.connect_again()

    def _connection_trouble(self) -> str:
        if (path := socket_path(self._address)) is not None and (why := why_unreachable(path)):
            return f"cannot reach the master at {self._address}: {why}"
        return f"cannot reach the master at {self._address}; is it running, and is the address right?"

    def _handshake_trouble(self, event: ConnectionEvent) -> str:
        if self._keys is not None and self.key_refused:
            return (
                f"the master at {self._address} refused this key: {self._keys.public} is not authorized there; "
                "join with a token of `nimbusctl token create`, or have the key added to the master's list"
            )
        broken_off = event.event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        if broken_off and socket_path(self._address) is not None:
            return (
                f"the master at {self._address} hung up: it takes its own user, root, and the members of the group "
                "that it was started with (--group)"
            )
        if self._keys is not None and broken_off:
            return (
                f"the master at {self._address} broke off the handshake: it does not have the key {self._master_key} "
                "that it is expected to have, or uses none; check its address and its public key"
            )
        if self._keys is None and event.value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return f"the master at {self._address} takes encrypted connections only, and no key is used here"
        if self._keys is None and broken_off:  # either side may be the first to notice
            return (
                f"the master at {self._address} broke off the handshake: perhaps it takes encrypted connections only, "
                "and no key is used here"
            )
        return f"no connection to the master at {self._address}: {event.failed}"

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._on_trouble(trouble)


async def enrol(token: JoinToken, node: str, keys: KeyPair, *, timeout_s: float = 20.0) -> None:
    """Have the master that issued `token` know `keys` as those of `node`. Raises TransportError if it will not."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[control.Message] = loop.create_future()

    def answered(message: control.Message) -> None:
        if isinstance(message, control.Enrolled | control.Refused) and not outcome.done():
            outcome.set_result(message)

    def troubled(trouble: str) -> None:
        if link.key_refused and not outcome.done():
            outcome.set_exception(
                TransportError(
                    f"the master at {token.address} takes no new nodes now: the token has expired or was used; "
                    "make a new one by `nimbusctl token create`"
                )
            )
        log.info("%s", trouble)

    def connected() -> None:
        link.send(control.Enrol(1, node, token.secret))

    link = NodeLink(
        token.address,
        answered,
        on_connected=connected,
        on_trouble=troubled,
        keys=keys,
        master_key=token.master_key,
    )
    try:
        answer = await asyncio.wait_for(outcome, timeout_s)
    except TimeoutError:
        why = link.trouble or "it does not answer"
        raise TransportError(f"could not join the master at {token.address} within {timeout_s:g} s: {why}") from None
    finally:
        link.close()
    if isinstance(answer, control.Refused):
        raise TransportError(f"the master at {token.address} refused node {node}: {answer.error}")
