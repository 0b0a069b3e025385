"""A node on the network: `Node` and its link to a master, put together."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from nimbusd import events
from nimbusd.config import WorkerConfig
from nimbusd.machine.cores import node_cores
from nimbusd.machine.memory import node_memory
from nimbusd.node.folders import FolderPlaces
from nimbusd.node.joining import as_joined, master_of, own_keys
from nimbusd.node.node import Node
from nimbusd.node.slots import discover
from nimbusd.program.import_folders import check_import_folders
from nimbusd.program.private_state import keep_private
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.messages import control as c
from nimbusd.transport.sockets.node_link import NodeLink

log = logging.getLogger(__name__)


class NetworkedNode:
    """A node until it is drained. Make it inside a running loop."""

    def __init__(self, config: WorkerConfig) -> None:
        """Read the node's key and its master, and find its slots. Raises NimbusError if it has not joined a master, or
        would have no slot.
        """
        check_import_folders(config.trusted_import_folders)
        keep_private(config.state)
        self._address, master_key = master_of(config)
        if master_key:
            config = as_joined(config)
        keys = own_keys(config) if master_key else None
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
        """The connection to the master and the work of this node, in a line."""
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
        """Stop at once; the master gives the episodes of this node to others."""
        self._node.kill()

    def _heard(self, message: c.Message) -> None:
        if isinstance(message, c.Refused):
            if not self._refusal.done():
                self._refusal.set_result(message.error)
        elif isinstance(message, c.TO_NODE):
            self._node.heard(message)
        else:
            log.warning("the master sent %s, which is not for nodes", type(message).__name__)


def log_event(event: events.Event) -> None:
    """Log what happens on a node; single stages of episodes only at the level for debugging."""
    log.log(logging.DEBUG if isinstance(event, events.StageBegan) else logging.INFO, "%s", event)
