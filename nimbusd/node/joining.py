"""A node's master: how a node becomes one of a master's, and the notes that it keeps of that (`joined.json`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path

from nimbusd.config import ConfigError, WorkerConfig
from nimbusd.program.private_state import keep_private
from nimbusd.transport.security.keys import KeyPair, generate, read_pair, write_pair, write_private
from nimbusd.transport.security.tokens import JoinToken
from nimbusd.transport.sockets.addresses import check_address, needs_keys
from nimbusd.transport.sockets.node_link import enrol
from nimbusd.transport.sockets.places import find_socket, why_unreachable

log = logging.getLogger(__name__)


async def join(config: WorkerConfig, text: str) -> None:
    """Become a node of the master that issued the token `text`: make a key, have it enrolled, remember the master.

    Safe to repeat: a token that we have joined by is not used again, so that the service may be started with it always,
    even while the master is away. Raises TransportError if the master will not have us.
    """
    keep_private(config.state)
    token, digest = JoinToken.parse(text), hashlib.sha256(text.encode()).hexdigest()
    path = config.state / "node.key"
    if not path.exists():
        write_pair(generate(), config.state, "node")
    else:
        with contextlib.suppress(ConfigError):  # what is damaged is written anew
            if _joined(config).get("token_sha256") == digest:
                log.info("joined the master at %s by this token before", token.address)
                return
            if "name" not in config.model_fields_set:
                config = as_joined(config)
    await enrol(token, config.name, read_pair(path))
    joined = {"address": token.address, "master_key": token.master_key, "node": config.name, "token_sha256": digest}
    write_private(config.state / "joined.json", json.dumps(joined, indent=1) + "\n")
    log.info("joined the master at %s as node %s", token.address, config.name)


def master_of(config: WorkerConfig) -> tuple[str, str]:
    """Address and public key of a node's master; the key is empty for one on this machine that uses none."""
    if config.master is not None and not needs_keys(config.master, any_local_user=config.allow_any_local_user):
        return config.master, ""
    joined = _joined(config)
    if not joined and config.master is None:
        address = find_socket(os.environ, os.geteuid())
        if why := why_unreachable(Path(address.removeprefix("ipc://"))):
            log.warning(
                "this node has not joined a master, and none listens on this machine (%s: %s): it waits for one there. "
                "Start `nimbusd master`, or join another by `nimbusd worker --join TOKEN`, with a token of `nimbusctl "
                "token create`",
                address,
                why,
            )
        return address, ""
    if not joined:
        check_address(config.master or "", encrypted=False)
    return config.master or joined["address"], joined["master_key"]


def as_joined(config: WorkerConfig) -> WorkerConfig:
    """With the name that this node joined under, which its master knows its key by, whatever the machine is called now.

    Raises ConfigError if the configuration gives it another one.
    """
    name = _joined(config).get("node", "") or config.name
    if "name" in config.model_fields_set and config.name != name:
        raise ConfigError(
            f"this node has joined its master as {name!r}, not as {config.name!r}: leave the name out, or join again "
            f"with --join and a new token (what it joined with is in {config.state})"
        )
    return config.model_copy(update={"name": name})


def _joined(config: WorkerConfig) -> dict[str, str]:
    """The notes on the master that was joined: address, master_key, node, token_sha256. Empty if none was."""
    path = config.state / "joined.json"
    try:
        joined = json.loads(path.read_text())
        found = {name: str(joined[name]) for name in ("address", "master_key")}
        return {**found, **{name: str(joined.get(name, "")) for name in ("node", "token_sha256")}}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): join again with `nimbusd worker --join TOKEN`") from error


def own_keys(config: WorkerConfig) -> KeyPair:
    """The node's own pair of keys."""
    return read_pair(Path(config.state) / "node.key")
