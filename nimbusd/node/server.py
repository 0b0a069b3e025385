"""A node on the network: `Node` and its link, put together; and how it joins a master."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from nimbusd import events
from nimbusd.config import ConfigError, WorkerConfig
from nimbusd.node.cores import node_cores
from nimbusd.node.folders import FolderPlaces
from nimbusd.node.memory import node_memory
from nimbusd.node.node import Node
from nimbusd.node.slots import discover
from nimbusd.program.import_folders import check_import_folders
from nimbusd.program.private_state import keep_private
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.messages import control as c
from nimbusd.transport.security.keys import KeyPair, generate, read_pair, write_pair, write_private
from nimbusd.transport.security.tokens import JoinToken
from nimbusd.transport.sockets.addresses import check_address, needs_keys
from nimbusd.transport.sockets.node_link import NodeLink, enrol
from nimbusd.transport.sockets.places import find_socket, why_unreachable

log = logging.getLogger(__name__)


class WorkerServer:
    """A node until it is drained. Make it inside a running loop."""

    def __init__(self, config: WorkerConfig) -> None:
        """Read the node's key and its master, and find its slots. Raises NimbusError if it has not joined a master, or
        would have no slot.
        """
        check_import_folders(config.trusted_import_folders)
        keep_private(config.state)
        self._address, master_key = _master(config)
        if master_key:
            config = _as_joined(config)
        keys = _own_keys(config) if master_key else None
        cores, memory = node_cores(), node_memory()
        slots = discover(config.workers, config.slots_per_gpu, config.gpus, cores=cores.cores)
        places = FolderPlaces.choose(config.temporary)
        self._refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._link = NodeLink(
            self._address,
            self._heard,
            on_connected=lambda: self._node.say_hello(),
            on_disconnected=lambda: log.warning("the connection to the master at %s broke", self._address),
            keys=keys,
            master_key=master_key,
            any_local_user=config.allow_any_local_user,
        )
        memory_bytes = int(config.memory_share * memory.limit_bytes)
        self._node = Node(
            config.name,
            slots,
            self._link,
            log_event,
            memory_bytes=memory_bytes,
            spares=config.spares,
            places=places,
        )
        log.info("node %s works for the master at %s", config.name, self._address)
        log.info("cores: %s; memory: %s", cores, memory)
        log.info("slots: %s", ", ".join(f"{slot.name} (cores {','.join(map(str, slot.cpus))})" for slot in slots))

    @property
    def ready(self) -> asyncio.Event:
        """Set once this node can work; the link connects whenever the master is there."""
        return self._node.ready

    def status(self) -> str:
        """Whether there is a master, and what this node does, in a line."""
        connected = f"connected to {self._address}"
        link = connected if self._link.connected else self._link.trouble or f"connecting to {self._address}"
        return f"{link}; {self._node.status()}"

    async def run(self) -> None:
        """Work until drained. Raises NimbusError if the master refuses this node, or no compute worker runs here."""
        working = asyncio.create_task(self._node.run())
        try:
            ends: set[asyncio.Future[Any]] = {working, self._refusal}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._refusal.done():
                raise NimbusError(f"the master refuses this node: {self._refusal.result()}")
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            self._link.close()

    def leave(self, why: str) -> None:
        """Finish what has begun, give back the rest, and end `run`."""
        self._node.leave(why)

    def kill(self) -> None:
        """Stop at once; the master gives what this node held to others."""
        self._node.kill()

    def _heard(self, message: c.Message) -> None:
        if isinstance(message, c.Refused):
            if not self._refusal.done():
                self._refusal.set_result(message.error)
        elif isinstance(message, c.TO_NODE):
            self._node.heard(message)
        else:
            log.warning("the master sent %s, which is not for nodes", type(message).__name__)


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
                config = _as_joined(config)
    await enrol(token, config.name, read_pair(path))
    joined = {"address": token.address, "master_key": token.master_key, "node": config.name, "token_sha256": digest}
    write_private(config.state / "joined.json", json.dumps(joined, indent=1) + "\n")
    log.info("joined the master at %s as node %s", token.address, config.name)


def log_event(event: events.Event) -> None:
    """What happens on a node goes to its log; every stage of every episode only when it is asked to say more."""
    log.log(logging.DEBUG if isinstance(event, events.StageBegan) else logging.INFO, "%s", event)


def _master(config: WorkerConfig) -> tuple[str, str]:
    """Address and public key of the master; the key is empty for one on this machine that uses none."""
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


def _as_joined(config: WorkerConfig) -> WorkerConfig:
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
    """What was noted of the master that was joined; nothing if none was."""
    path = config.state / "joined.json"
    try:
        joined = json.loads(path.read_text())
        found = {name: str(joined[name]) for name in ("address", "master_key")}
        return {**found, **{name: str(joined.get(name, "")) for name in ("node", "token_sha256")}}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): join again with `nimbusd worker --join TOKEN`") from error


def _own_keys(config: WorkerConfig) -> KeyPair:
    return read_pair(Path(config.state) / "node.key")
