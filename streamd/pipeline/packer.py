"""Packs in the making: frames are collected until a pack is full, or has waited long enough.

`add` returns a future that is done when the pack is durable in the store and registered in the
catalog.
A bounded number of packs is on its way at a time; `add` blocks while that many are.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from streamd.format.frame import SealedBatch
from streamd.format.keys import Role
from streamd.format.pack import EncodedObject
from streamd.pipeline.channel import Channel, Closed
from streamd.policy.effort import PACK_BYTES, PACK_BYTES_MAX
from streamd.vault.writer import VaultWriter

PACK_TARGET: Final = PACK_BYTES
META_PACK_TARGET: Final = 8 * 1024 * 1024
LINGER_SECONDS: Final = 1.0  # an open pack waits no longer for more frames
IN_FLIGHT_MAX: Final = 2


class _OpenPack:
    def __init__(self, role: Role, durable: "asyncio.Future[int]") -> None:
        self.role = role
        self.batches: list[SealedBatch] = []
        self.size_bytes = 0
        self.durable = durable


class Packer:
    """Collects frames of each role into packs. Run `run` beside it in the same TaskGroup."""

    def __init__(
        self,
        writer: VaultWriter,
        publish: Callable[[EncodedObject], Awaitable[int]],
        threads: Executor,
        target_bytes: Callable[[], int] | int = PACK_TARGET,
    ) -> None:
        self._writer = writer
        self._threads = threads
        self._publish = publish
        self._target_bytes = target_bytes if callable(target_bytes) else lambda: target_bytes
        self._open: dict[Role, _OpenPack] = {}
        self._overdue: set[Role] = set()
        self._wake = asyncio.Event()
        self.full: Channel[_OpenPack] = Channel(
            "pack", items_max=IN_FLIGHT_MAX, bytes_max=IN_FLIGHT_MAX * PACK_BYTES_MAX
        )

    async def add(self, batch: SealedBatch, role: Role) -> "asyncio.Future[int]":
        """Put frames into the open pack; the future holds the pack's object number in the end."""
        pack = self._open.get(role)
        if pack is None:
            loop = asyncio.get_running_loop()
            pack = self._open[role] = _OpenPack(role, loop.create_future())
            loop.call_later(LINGER_SECONDS, self._linger_over, pack)
        pack.batches.append(batch)
        pack.size_bytes += batch.stored_size
        if pack.size_bytes >= (META_PACK_TARGET if role is Role.META else self._target_bytes()):
            del self._open[role]
            await self.full.send(pack, pack.size_bytes)
        return pack.durable

    def _linger_over(self, pack: _OpenPack) -> None:
        if self._open.get(pack.role) is pack:
            self._overdue.add(pack.role)
            self._wake.set()

    async def flush(self) -> None:
        """Let every open pack go now. Who asks may be cancelled: our own task sends them."""
        self._overdue.update(self._open)
        self._wake.set()

    async def run(self) -> None:
        """Encode and publish packs until the channel is closed."""
        async with asyncio.TaskGroup() as group:
            lingering = group.create_task(self._send_overdue(), name="pack.linger")
            async with asyncio.TaskGroup() as workers:
                for number in range(IN_FLIGHT_MAX):
                    workers.create_task(self._work(), name=f"pack.{number}")
            lingering.cancel()

    async def _send_overdue(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for role in list(self._overdue):
                self._overdue.discard(role)
                pack = self._open.pop(role, None)
                if pack is not None:
                    await self.full.send(pack, pack.size_bytes)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                pack = await self.full.receive()
            except Closed:
                return
            encoded = await loop.run_in_executor(
                self._threads, self._writer.encode_pack, pack.batches, pack.role
            )
            pack.batches.clear()
            pack.durable.set_result(await self._publish(encoded))
