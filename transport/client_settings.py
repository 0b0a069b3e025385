"""Where the master is and which keys to use: from arguments, the environment, and a settings file, in this order.

The file is `~/.config/nimbus/client.toml` (or under XDG_CONFIG_HOME):

    master = "tcp://10.0.0.5:7600"
    master_key = "~/.config/nimbus/master.pub"    # the master's public key, or a file with it
    key = "~/.config/nimbus/alice.key"            # made by `nimbusctl keygen`
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbusd.transport.addresses import is_private
from nimbusd.transport.client_errors import ClientError
from nimbusd.transport.keys import KeyFileError, KeyPair, is_key, read_pair, read_public

DEFAULT_ADDRESS = "tcp://127.0.0.1:7600"
VARIABLES = {"master": "NIMBUS_MASTER", "master_key": "NIMBUS_MASTER_KEY", "key": "NIMBUS_KEY"}
"""Name in the settings file → environment variable."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client needs to connect. master_key: in Z85, empty: unencrypted. key: secret key file of this client."""

    address: str
    master_key: str = ""
    key: Path | None = None

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
    environ: Mapping[str, str] = os.environ,
) -> ClientSettings:
    """The settings, each from the first place that has it; without an address, that of a master on this machine.

    Keys that come from another place than a loopback or ipc address are not for that address, and left out.
    Raises ClientError for a file that cannot be used.
    """
    places: tuple[Mapping[str, str | None], ...] = (
        {"master": address, "master_key": master_key, "key": None if key is None else str(key)},
        {name: environ.get(variable) for name, variable in VARIABLES.items()},
        _read_file(settings_file(environ)),
    )

    def first(name: str) -> tuple[int, str]:
        return next(((i, value) for i, place in enumerate(places) if (value := place.get(name))), (len(places), ""))

    origin, found = first("master")
    found = found or DEFAULT_ADDRESS
    if "://" not in found:
        found = f"tcp://{found}"
    keys = {name: value for name in ("master_key", "key") for where, value in [first(name)] if value}
    if is_private(found):
        keys = {name: value for name, value in keys.items() if first(name)[0] in (0, origin)}
    secret = keys.get("key")
    return ClientSettings(
        found, _public_key(keys.get("master_key", "")), None if secret is None else Path(secret).expanduser()
    )


def _public_key(text: str) -> str:
    """A public key as it is, or from a `.pub` file."""
    if not text or is_key(text):
        return text
    try:
        return read_public(Path(text).expanduser())[1]
    except KeyFileError as error:
        raise ClientError(f"master's key: {error}") from error


def _read_file(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    import tomllib  # most clients never need it

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClientError(f"settings file {path} cannot be read: {error}") from error
    for name, value in values.items():
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it may have {', '.join(VARIABLES)}"
            raise ClientError(f"settings file {path} has an unknown key '{name}'; {hint}")
        if not isinstance(value, str):
            raise ClientError(f"settings file {path}: '{name}' must be text in quotes, but it is {value!r}")
    return values
