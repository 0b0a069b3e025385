"""CURVE key pairs and their files. Keys are text in Z85: 40 characters for 32 bytes.

`NAME.key` holds the secret and is readable by its owner (or a group made for it) alone; the public key follows from
it. `NAME.pub` is one line, `NAME KEY`, made to be pasted into a master's list of authorized keys.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from nimbusd.transport.errors import TransportError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class KeyFileError(TransportError):
    """A key or its file cannot be used."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public key and its secret, both in Z85."""

    public: str
    secret: str = field(repr=False)


def generate() -> KeyPair:
    """A new pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def is_key(text: str) -> bool:
    """`text` is 32 bytes in Z85."""
    if len(text) != 40 or not text.isascii():
        return False
    try:
        return z85.encode(z85.decode(text)) == text.encode()
    except (KeyError, ValueError, struct.error):  # the last for groups that are more than 32 bits
        return False


def is_name(text: str) -> bool:
    """`text` can name a node or a person: letters, digits, dots, dashes and underscores, 63 at most."""
    return _NAME.fullmatch(text) is not None


def write_pair(pair: KeyPair, folder: Path, name: str, *, force: bool = False) -> tuple[Path, Path]:
    """Write `NAME.key` and `NAME.pub` into `folder` and return their paths. force: replace those that are there."""
    if not is_name(name):
        raise KeyFileError(f"name {name!r} is not 1 to 63 letters, digits, dots, dashes and underscores")
    secret_path, public_path = folder / f"{name}.key", folder / f"{name}.pub"
    there = [str(path) for path in (secret_path, public_path) if path.exists()]
    if there and not force:
        raise KeyFileError(
            f"{' and '.join(there)} exist{'s' * (len(there) == 1)} and would be lost; choose another --name "
            "or --output, or replace with --force"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = f"# Secret key of {name!r} for nimbusd. Show it to nobody; others need {public_path.name} alone.\n"
        write_private(secret_path, text + pair.secret + "\n")
        public_path.write_text(f"{name} {pair.public}\n")
    except OSError as error:
        raise KeyFileError(f"cannot write keys to {folder}: {error.strerror}") from error
    return secret_path, public_path


def read_pair(path: Path) -> KeyPair:
    """The pair whose secret is in the file at `path`. Refuses files that anybody on the machine can read."""
    try:
        with path.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lines = [line.strip() for line in file.read(4096).splitlines()]
    except OSError as error:
        raise KeyFileError(
            f"cannot read key file {path}: {error.strerror}; `nimbusctl keygen` makes new ones"
        ) from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"key file {path} is not text") from error
    if path.suffix == ".pub" or any(_names_key(line) for line in lines):
        raise KeyFileError(f"{path} holds a public key, and a secret one is needed: name {path.with_suffix('.key')}")
    if mode & 0o027:
        raise KeyFileError(
            f"key file {path} has mode {mode:04o}, so that others than its owner can use it; `chmod 600 {path}`"
        )
    # A line of another kind than a comment is a key, even if it begins with '#', which Z85 may.
    keys = [line for line in lines if is_key(line)]
    if len(keys) != 1:
        raise KeyFileError(f"key file {path} holds {len(keys)} keys instead of one; `nimbusctl keygen` makes new ones")
    return KeyPair(zmq.curve_public(keys[0].encode()).decode(), keys[0])


def _names_key(line: str) -> bool:
    """It is the line of a `.pub` file."""
    words = line.split()
    return len(words) == 2 and is_name(words[0]) and is_key(words[1])


def read_public(path: Path) -> tuple[str, str]:
    """The name and the public key in a `.pub` file."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"cannot read public key file {path}: {error}") from error
    if _names_key(text):
        name, key = text.split()
        return name, key
    if sum(is_key(line.strip()) for line in text.splitlines()) == 1:
        raise KeyFileError(f"{path} holds a secret key, and a public one is needed: name {path.with_suffix('.pub')}")
    raise KeyFileError(f"public key file {path} is not one line of a name and a key of 40 characters")


def write_private(path: Path, text: str) -> None:
    """Replace the file at `path` in one step; nobody but the owner can read it at any moment."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
