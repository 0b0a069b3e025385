"""The rights of peers: who is let in by a master, and what each role may say.

A master that can be reached over the network speaks CURVE: it proves its own key, and knows its peers by theirs. Its
allow-list has one line per key, `ROLE NAME KEY`: a `node` may speak for the node of its name, an `admin` may make
every request of a client. A key that is not listed is turned away in the handshake, unless join tokens are open: then
it becomes a `guest`, who may send `Enrol` with a token's secret and nothing else. The key of the connection is what
is enrolled, so that no key travels in a message. One port serves all of them.

Roles are looked up again for each message, not once for each connection: who is taken off the list is cut off at
once, and a guest who enrolled is a node without connecting again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import is_key, is_name


class AllowListError(TransportError):
    """An allow-list that cannot be read, or an entry that cannot be added."""


class PeerRole(enum.StrEnum):
    """The rights of a peer. LOCAL: it came over an unencrypted address, which processes of this machine alone reach."""

    LOCAL = "local"
    NODE = "node"
    ADMIN = "admin"
    GUEST = "guest"


class Peer(NamedTuple):
    """One connection. listener, route: where answers go. name: of the key's entry; empty for LOCAL and GUEST.

    key: public key in Z85; empty for LOCAL.
    """

    listener: int
    route: bytes
    role: PeerRole
    name: str = ""
    key: str = ""

    def __str__(self) -> str:
        """For logs."""
        if self.name:
            return f"{self.role} {self.name}"
        return f"{self.role} with key {self.key}" if self.key else f"local peer {self.route.hex()}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the allow-list."""

    role: PeerRole
    name: str
    key: str


class AllowList:
    """Keys and whom they belong to. A name has one key per role, a key has one entry."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_key: dict[str, Entry] = {}
        self._by_name: dict[tuple[PeerRole, str], Entry] = {}
        for entry in entries:
            self.add(entry)

    @classmethod
    def parse(cls, text: str, where: str) -> AllowList:
        """Read lines of `ROLE NAME KEY`; empty lines and those that begin with # count for nothing.

        where: what to call the text in errors. Raises AllowListError, which names the line.
        """
        listed = cls()
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split()
            if len(words) != 3 or words[0] not in (PeerRole.NODE, PeerRole.ADMIN):
                raise AllowListError(
                    f"{where}:{number}: expected `node NAME KEY` or `admin NAME KEY`, got {line!r:.80}"
                )
            try:
                listed.add(Entry(PeerRole(words[0]), words[1], words[2]))
            except AllowListError as error:
                raise AllowListError(f"{where}:{number}: {error}") from error
        return listed

    def add(self, entry: Entry) -> None:
        """Add an entry; the same one again changes nothing. Raises AllowListError if its name or key is taken."""
        if not is_name(entry.name):
            raise AllowListError(
                f"name {entry.name!r:.80} is not 1 to 63 letters, digits, dots, dashes and underscores"
            )
        if not is_key(entry.key):
            raise AllowListError(f"the key of {entry.role} {entry.name} is not 40 characters of Z85")
        same_key = self._by_key.get(entry.key)
        if same_key is not None and same_key != entry:
            raise AllowListError(
                f"the key of {entry.role} {entry.name} is that of {same_key.role} {same_key.name} already"
            )
        same_name = self._by_name.get((entry.role, entry.name))
        if same_name is not None and same_name != entry:
            raise AllowListError(f"{entry.role} {entry.name} has another key already")
        self._by_key[entry.key] = entry
        self._by_name[entry.role, entry.name] = entry

    def get(self, key: str) -> Entry | None:
        """The owner of a key, if it has one here."""
        return self._by_key.get(key)

    def entries(self) -> tuple[Entry, ...]:
        """All of them, in the order of adding."""
        return tuple(self._by_key.values())


def format_entry(entry: Entry) -> str:
    """The entry's line in a file."""
    return f"{entry.role} {entry.name} {entry.key}\n"


_REQUESTS = frozenset(control.REQUESTS)
_FROM_NODE = frozenset(control.FROM_NODE)

_ALLOWED: Mapping[PeerRole, frozenset[type]] = {
    PeerRole.LOCAL: _REQUESTS | _FROM_NODE,
    PeerRole.ADMIN: _REQUESTS,
    PeerRole.NODE: _FROM_NODE,
    PeerRole.GUEST: frozenset(),
}


def objection(peer: Peer, message: control.Message) -> str | None:
    """The reason why `peer` may not say `message`, as a sentence for its user; None: it may.

    Enrol is no matter of roles: see `Gate.enrol`.
    """
    kind = type(message)
    if kind not in _ALLOWED[peer.role]:
        if peer.role is PeerRole.GUEST:
            return (
                f"this master does not know the key {peer.key}; join with a token of `nimbusctl token create`, "
                "or have the key added to the master's list of authorized keys"
            )
        return f"a key of role {peer.role} may not send {kind.__name__}"
    if peer.role is PeerRole.NODE and (said := getattr(message, "node", None)) != peer.name:
        return f"the key of node {peer.name} may not speak for node {said!r:.80}"
    return None
