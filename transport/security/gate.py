"""The master's gate: its allow-list and its open join tokens, kept in two files of its state folder.

`authorized` has the allow-list and may be edited while the master runs: it is read again when it has changed, at the
next handshake of a key that is not on it and at each `refresh`. `tokens.json` has hashes of secrets and is the
master's alone.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from nimbusd.transport.errors import TransportError
from nimbusd.transport.security.auth import AllowList, AllowListError, Entry, PeerRole, format_entry
from nimbusd.transport.security.keys import write_private
from nimbusd.transport.security.tokens import Issued, JoinToken, Redeemed, TokenStore, new_secret

log = logging.getLogger(__name__)

_HEADER = "# Keys that this master lets in, one a line: `node NAME KEY` or `admin NAME KEY`. Changes count at once.\n"

_WHY_NOT = {
    Redeemed.UNKNOWN: "this master did not issue that join token, or it expired long ago",
    Redeemed.EXPIRED: "the join token has expired",
    Redeemed.USED: "the join token was used by another node already; each is good for one node",
}


class Gate:
    """Decides who comes in. Files are small and changes rare, so they are read and written where one waits for it."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open the gate of the master whose state is in `folder`. Raises TransportError if a file is damaged."""
        self._list_path, self._tokens_path = folder / "authorized", folder / "tokens.json"
        self._clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._list_path.exists():
                write_private(self._list_path, _HEADER)
            self._stamp: tuple[int, int, int] | None = self._list_stamp()
            self._list = AllowList.parse(self._list_path.read_text(), str(self._list_path))
        except (OSError, UnicodeDecodeError) as error:
            raise TransportError(f"cannot use the allow-list {self._list_path}: {error}") from error
        self._tokens = _read_tokens(self._tokens_path)

    def entry(self, key: str) -> Entry | None:
        """The owner of a key, as last read."""
        return self._list.get(key)

    def admits(self, key: str) -> bool:
        """True where a connection with `key` may stand: the key is on the list, or its node may be about to enrol."""
        if self._list.get(key) is None:
            self.refresh()
        return self._list.get(key) is not None or self._tokens.is_open(self._clock())

    def refresh(self) -> None:
        """Read the allow-list again if it has changed. A damaged one is reported, and the last good one holds."""
        try:
            stamp = self._list_stamp()
        except OSError as error:
            if self._stamp is not None:
                log.error("the allow-list cannot be read; the last good one holds: %s", error)
            self._stamp = None
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._list = AllowList.parse(self._list_path.read_text(), str(self._list_path))
        except (OSError, UnicodeDecodeError, AllowListError) as error:
            log.error("the allow-list cannot be read; the last good one holds: %s", error)

    def add(self, entry: Entry) -> None:
        """Add to the allow-list, durably. Raises AllowListError if the name or key is taken, or writing fails."""
        self.refresh()
        if self._list.get(entry.key) == entry:
            return
        self._list.add(entry)
        try:
            # What the operator wrote stays as it is, comments included.
            text = self._list_path.read_text()
            write_private(self._list_path, text + "\n" * (not text.endswith("\n")) + format_entry(entry))
            self._stamp = self._list_stamp()
        except OSError as error:
            self._list = AllowList(other for other in self._list.entries() if other != entry)
            raise AllowListError(f"cannot write the allow-list {self._list_path}: {error.strerror}") from error

    def make_token(self, address: str, master_key: str, ttl_s: float) -> JoinToken:
        """Issue a token, durably. Raises TransportError if that cannot be."""
        secret = new_secret()
        issued = self._tokens.issue(secret, self._clock(), ttl_s)
        self._write_tokens()
        return JoinToken(address, master_key, secret, issued.expires_unix_s)

    def enrol(self, key: str, node: str, secret: str) -> str | None:
        """Put `key` on the list as that of `node` if `secret` allows it; None, or a sentence that says why not.

        What is enrolled already may ask again, because an answer can be lost on its way. The token is used up first:
        a crash in between costs a token, never lets in two nodes by one.
        """
        if not key:
            return "a node enrols over an encrypted connection only; on this one it needs no token"
        entry = Entry(PeerRole.NODE, node, key)
        self.refresh()
        if self._list.get(key) == entry:
            return None
        try:
            AllowList(self._list.entries()).add(entry)  # a name that is taken costs no token
        except AllowListError as error:
            return f"{error}; join under another name, or have its line removed from the master's `authorized` file"
        redeemed = self._tokens.redeem(secret, self._clock())
        if redeemed is not Redeemed.YES:
            return f"{_WHY_NOT[redeemed]}; make a new one by `nimbusctl token create`"
        try:
            self._write_tokens()
            self.add(entry)
        except TransportError as error:
            log.error("node %s could not enrol: %s", node, error)
            return f"the master could not note the key: {error}"
        log.info("node %s enrolled with the key %s", node, key)
        return None

    def _list_stamp(self) -> tuple[int, int, int]:
        found = os.stat(self._list_path)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _write_tokens(self) -> None:
        rows = [
            {"digest": item.digest, "expires_unix_s": item.expires_unix_s, "used": item.used}
            for item in self._tokens.issued()
        ]
        try:
            write_private(self._tokens_path, json.dumps({"version": 1, "issued": rows}, indent=1) + "\n")
        except OSError as error:
            raise TransportError(f"cannot write the join tokens {self._tokens_path}: {error.strerror}") from error


def _read_tokens(path: Path) -> TokenStore:
    try:
        document = json.loads(path.read_text())
        rows = [Issued(str(r["digest"]), float(r["expires_unix_s"]), bool(r["used"])) for r in document["issued"]]
    except FileNotFoundError:
        return TokenStore()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TransportError(
            f"the file of join tokens {path} cannot be read ({error}); remove it, which voids the open tokens"
        ) from error
    return TokenStore(tuple(rows))
