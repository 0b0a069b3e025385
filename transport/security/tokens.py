"""Join tokens: the one line that a machine needs to become a node.

A token holds the master's address, the master's public key and a secret that lets one node in. The master keeps only
hashes of secrets. Expiry is by wall-clock time (`now_unix_s`), because tokens outlive processes.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass, field, replace

from nimbusd.transport.codec import Codec
from nimbusd.transport.errors import TransportError
from nimbusd.transport.security.keys import is_key

_PREFIX = "nimbus1."
MAX_OPEN_TOKENS = 1_000


class TokenError(TransportError):
    """A token that is no token, or cannot be issued."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """All that a node needs to join, and the time until which the master takes it."""

    address: str
    master_key: str
    secret: str = field(repr=False)
    expires_unix_s: float

    def text(self) -> str:
        """One line, to be copied as a whole."""
        body = _CODEC.encode(self)
        return _PREFIX + base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """The token in `text`. Raises TokenError, which never quotes the secret."""
        text = text.strip()
        if not text.startswith(_PREFIX):
            raise TokenError(f"that is no join token, which begins with {_PREFIX}; `nimbusctl token create` makes one")
        body = text.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            if _checksum(raw[4:]) != raw[:4]:
                raise ValueError("the checksum is wrong")
            token = _CODEC.decode(raw[4:])
        except ValueError as error:  # MessageError and binascii.Error among them
            raise TokenError("the join token is damaged; copy the whole line, or make a new one") from error
        if not is_key(token.master_key):
            raise TokenError("the join token holds no valid key of the master; make a new one")
        return token


_CODEC: Codec[JoinToken] = Codec((JoinToken,), version=1)


def _checksum(body: bytes) -> bytes:
    """Finds slips in copying, which would else show as a master that cannot be reached or trusted."""
    return zlib.crc32(body).to_bytes(4, "big")


def new_secret() -> str:
    """A secret for one node: 192 random bits."""
    return secrets.token_urlsafe(24)


class Redeemed(enum.Enum):
    """The verdict on a secret that a node showed."""

    YES = "yes"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used"


@dataclass(frozen=True, slots=True)
class Issued:
    """A secret that was given out. digest: SHA-256 of it."""

    digest: str
    expires_unix_s: float
    used: bool = False


class TokenStore:
    """The secrets that were issued and have not expired, each good for one node."""

    def __init__(self, issued: tuple[Issued, ...] = ()) -> None:
        self._issued = {item.digest: item for item in issued}

    def issue(self, secret: str, now_unix_s: float, ttl_s: float) -> Issued:
        """Let one node in with `secret` during the next ttl_s. Raises TokenError if too many wait already."""
        self.forget_expired(now_unix_s)
        if not 0 < ttl_s < float("inf"):
            raise TokenError(f"a token cannot be good for {ttl_s} s; give a positive time")
        if len(self._issued) >= MAX_OPEN_TOKENS:
            raise TokenError(f"{MAX_OPEN_TOKENS} tokens are open; wait until some expire")
        item = Issued(_digest(secret), now_unix_s + ttl_s)
        self._issued[item.digest] = item
        return item

    def redeem(self, secret: str, now_unix_s: float) -> Redeemed:
        """Use up `secret`."""
        digest = _digest(secret)
        # In time that does not depend on the secret, although hashing alone makes guessing by time hopeless.
        found = [item for item in self._issued.values() if hmac.compare_digest(item.digest, digest)]
        if not found:
            return Redeemed.UNKNOWN
        if found[0].expires_unix_s <= now_unix_s:
            return Redeemed.EXPIRED
        if found[0].used:
            return Redeemed.USED
        self._issued[digest] = replace(found[0], used=True)
        return Redeemed.YES

    def is_open(self, now_unix_s: float) -> bool:
        """Somebody may still join with one of them."""
        return any(item.expires_unix_s > now_unix_s and not item.used for item in self._issued.values())

    def forget_expired(self, now_unix_s: float) -> None:
        """Keep the store small."""
        self._issued = {d: item for d, item in self._issued.items() if item.expires_unix_s > now_unix_s}

    def issued(self) -> tuple[Issued, ...]:
        """All of them, to be kept in a file."""
        return tuple(self._issued.values())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
