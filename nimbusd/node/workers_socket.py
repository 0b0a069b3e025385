"""The daemon's side of the socket to its compute workers and spares."""

from __future__ import annotations

import logging

import zmq
import zmq.asyncio

from nimbusd.core.ids import WorkerId
from nimbusd.transport.messages import local as m

log = logging.getLogger(__name__)


class WorkersSocket:
    """A socket that workers connect to. A worker can be sent something from its hello until it is gone."""

    def __init__(self) -> None:
        self._addresses: dict[WorkerId, bytes] = {}
        self._dropped = 0

    def open(self, endpoint: str) -> None:
        """Bind the socket."""
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_MESSAGE_BYTES)
        self._socket.bind(endpoint)

    async def receive(self) -> m.Message:
        """The next message from a worker. What is none of ours is dropped, and logged."""
        while True:
            address, *frames = await self._socket.recv_multipart()
            try:
                message = m.decode(frames[-1] if frames else b"")
            except m.MessageError as error:
                self._dropped += 1
                log.warning("dropped message %d that is none of ours: %s", self._dropped, error)
                continue
            if isinstance(message, m.WorkerHello):
                self._addresses[message.worker] = address
            return message

    async def send(self, worker: WorkerId, message: m.Message) -> None:
        """Send a worker something; nothing happens if it is not there."""
        if (address := self._addresses.get(worker)) is not None:
            await self._socket.send_multipart([address, m.encode(message)])

    def workers(self) -> list[WorkerId]:
        """Workers and spares that have said hello and are not gone."""
        return list(self._addresses)

    def forget(self, worker: WorkerId) -> None:
        """A worker is gone, or goes by another name."""
        self._addresses.pop(worker, None)

    def close(self) -> None:
        self._socket.close()
        self._context.term()
