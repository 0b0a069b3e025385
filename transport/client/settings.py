"""Where the master is and which keys to use: from arguments, the environment, and a settings file, in this order.

The file is `~/.config/nimbus/client.toml` (or under XDG_CONFIG_HOME):

    master = "tcp://10.0.0.5:7600"
    master_key = "~/.config/nimbus/master.pub"    # the master's public key, or a file with it
    key = "~/.config/nimbus/alice.key"            # made by `nimbusctl keygen`
    allow_any_local_user = true                   # in place of keys, for a master on loopback that says so, too
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbusd.transport.errors import ClientError
from nimbusd.transport.security.keys import KeyFileError, KeyPair, is_key, read_pair, read_public
from nimbusd.transport.sockets.addresses import AddressError, check_form, needs_keys
from nimbusd.transport.sockets.places import find_socket

VARIABLES = {"master": "NIMBUS_MASTER", "master_key": "NIMBUS_MASTER_KEY", "key": "NIMBUS_KEY"}
"""Name in the settings file → environment variable."""
ALLOWANCE = ("allow_any_local_user", "NIMBUS_ALLOW_ANY_LOCAL_USER")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client needs to connect. master_key: in Z85, empty: unencrypted. key: secret key file of this client.

    any_local_user: on the loopback address there are no keys.
    """

    address: str
    master_key: str = ""
    key: Path | None = None
    any_local_user: bool = False

    def pair(self) -> KeyPair | None:
        """The client's own keys. Raises ClientError if their file cannot be used."""
        try:
            return None if self.key is None else read_pair(self.key)
        except KeyFileError as error:
            raise ClientError(str(error)) from error


def settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings file is, if there is one."""
    folder = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "nimbus" / "client.toml"


def find_settings(
    address: str | None = None,
    master_key: str | None = None,
    key: str | Path | None = None,
    any_local_user: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> ClientSettings:
    """The settings, each from the first place that has it; without an address, that of a master on this machine.

    Keys are left out for an address that needs none. Raises ClientError for a file or an address that cannot be used.
    """
    path = settings_file(environ)
    file, allowed = _read_file(path)
    places: dict[str, Mapping[str, str | None]] = {
        "": {"master": address, "master_key": master_key, "key": None if key is None else str(key)},
        f"{VARIABLES['master']}: ": {name: environ.get(variable) for name, variable in VARIABLES.items()},
        f"settings file {path}: 'master': ": file,
    }

    def first(name: str) -> str:
        return next((value for place in places.values() if (value := place.get(name))), "")

    found = first("master") or find_socket(environ, os.geteuid())
    if "://" not in found:
        found = f"tcp://{found}"
    try:
        check_form(found)
    except AddressError as error:
        where = next((where for where, place in places.items() if place.get("master")), "")
        raise ClientError(f"{where}{error}") from error
    allowed = any_local_user or _flag(environ) or allowed
    if not needs_keys(found, any_local_user=allowed):
        return ClientSettings(found, any_local_user=allowed)
    secret = first("key")
    return ClientSettings(found, _public_key(first("master_key")), Path(secret).expanduser() if secret else None)


def _flag(environ: Mapping[str, str]) -> bool:
    text = environ.get(ALLOWANCE[1], "").lower()
    if text not in (*_YES, *_NO):
        raise ClientError(f"{ALLOWANCE[1]} is {text!r}; it may be 1 or 0")
    return text in _YES


def _public_key(text: str) -> str:
    """A public key as it is, or from a `.pub` file; a path of 40 characters may look like a key."""
    if not text or (is_key(text) and not os.path.exists(text)):
        return text
    try:
        return read_public(Path(text).expanduser())[1]
    except KeyFileError as error:
        raise ClientError(f"master's key: {error}") from error


def _read_file(path: Path) -> tuple[dict[str, str], bool]:
    """The settings that are text, and whether any local user is allowed."""
    if not path.exists():
        return {}, False
    import tomllib  # most clients never need it

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClientError(f"settings file {path} cannot be read: {error}") from error
    allowed = values.pop(ALLOWANCE[0], False)
    if not isinstance(allowed, bool):
        raise ClientError(f"settings file {path}: '{ALLOWANCE[0]}' must be true or false, but it is {allowed!r}")
    for name, value in values.items():
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, [*VARIABLES, ALLOWANCE[0]], 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it may have {', '.join([*VARIABLES, ALLOWANCE[0]])}"
            raise ClientError(f"settings file {path} has an unknown key '{name}'; {hint}")
        if not isinstance(value, str):
            raise ClientError(f"settings file {path}: '{name}' must be text in quotes, but it is {value!r}")
    return values, allowed
