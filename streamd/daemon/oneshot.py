"""One job without the daemon: what `streamd capture` does, and sending what another one puts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec

from streamd.catalog import dirty
from streamd.catalog.journal import load_head
from streamd.config.model import Config, SourceConfig
from streamd.daemon.following import follow_keys
from streamd.daemon.host import Host, open_host
from streamd.daemon.meters import Meters
from streamd.daemon.protection import Protection
from streamd.effects import MICROSECONDS, SystemClock, SystemEntropy
from streamd.model.record import Mark

Progress = Callable[[int, int], None]


class SourceResult(msgspec.Struct, frozen=True):
    """How capturing one source ended."""

    name: str
    entries: int
    problems: int
    at_us: int
    state: str


class CaptureResult(msgspec.Struct, frozen=True):
    """How a capture ended."""

    sources: tuple[SourceResult, ...]
    seconds: float
    source_bytes: int
    stored_bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether everything is protected."""
        return all(one.state == "protected" and not one.problems for one in self.sources)


async def capture(
    config: Config,
    sources: Mapping[str, SourceConfig],
    *,
    label: str = "",
    hold_seconds: int = 0,
    progress: Progress | None = None,
) -> CaptureResult:
    """Capture `sources` once; everything is in the vault of record when this returns."""
    clock, entropy, meters = SystemClock(), SystemEntropy(), Meters()
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with open_host(config, clock=clock, entropy=entropy, meters=meters) as host:
        await follow_keys(host)
        protections = [await host.protection(name, one, now=True) for name, one in sources.items()]
        if host.spool is not None and host.view.local_seed() == "bypass":
            host.spool.is_seeding = lambda: any(one.is_seeding for one in protections)
        hold_until = clock.now_us() + hold_seconds * MICROSECONDS if hold_seconds else 0
        marks = [Mark(label or "held", "crash", hold_until)] if label or hold_seconds else []
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(_show(protections, meters, progress), name="progress")]
            helpers += _start_senders(host, group)
            async with asyncio.TaskGroup() as capturing:
                capturing.create_task(host.pipeline.run(), name="pipeline")
                capturing.create_task(_run(host, protections, marks), name="capture")
            await host.finish()
            if host.uploader is not None:
                await host.uploader.finish()
            for helper in helpers:
                helper.cancel()
        covered = {one.name: one.progress.drained_us for one in protections}
        await host.catalog.write(host.journal.remember_coverage, covered)
        results = [await _result(host, protection) for protection in protections]
        for protection in protections:
            protection.close()
    return CaptureResult(
        tuple(results),
        loop.time() - started,
        meters.source_bytes,
        meters.stored_bytes,
    )


@asynccontextmanager
async def sending(host: Host) -> AsyncIterator[None]:
    """Have what is put inside sent to the container, if there is one. Raises what `finish` does."""
    async with asyncio.TaskGroup() as group:
        helpers = _start_senders(host, group)
        yield
        if host.uploader is not None:
            await host.uploader.finish()
        for helper in helpers:
            helper.cancel()


def _start_senders(host: Host, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    if host.uploader is None:
        return []
    return [
        group.create_task(host.uploader.run(), name="upload"),
        group.create_task(host.traffic.run(), name="traffic"),
        group.create_task(host.adapting.run(), name="adapting"),
    ]


async def _run(host: Host, protections: list[Protection], marks: list[Mark]) -> None:
    async with asyncio.TaskGroup() as group:
        for protection in protections:
            group.create_task(protection.capture_once(marks), name=f"capture:{protection.name}")
    await host.pipeline.drain()


async def _result(host: Host, protection: Protection) -> SourceResult:
    problems = await host.catalog.read(dirty.problems, protection.stream.number)
    head = await host.catalog.read(load_head)
    return SourceResult(
        protection.name,
        protection.progress.entries_scanned,
        len(problems),
        head.last_us,
        protection.progress.state,
    )


async def _show(protections: list[Protection], meters: Meters, progress: Progress | None) -> None:
    if progress is None:
        return
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            entries = sum(one.progress.entries_scanned for one in protections)
            progress(entries, meters.source_bytes)
            await asyncio.sleep(0.5)
