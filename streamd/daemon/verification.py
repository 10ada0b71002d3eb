"""Verification beside the capture: on a schedule and on request, at the lowest priority.

It looks at the vault of record, not at the copy in front of it, and heals what it can. When each
level last succeeded is in the catalog, so a restart does not begin anew.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from streamd.catalog.db import get_int, put_value
from streamd.catalog.objects import ObjectState
from streamd.config.model import Config, VerifyConfig
from streamd.daemon.host import Host
from streamd.effects import MICROSECONDS
from streamd.errors import StreamdError, UsageInvalid
from streamd.observe.logging import get_logger
from streamd.policy.backoff import fraction_of
from streamd.policy.verify_schedule import (
    LEVELS,
    Failure,
    after_failure,
    after_look,
    due_level,
    with_retry,
)
from streamd.vault.parallel import in_this_pool
from streamd.vault.vault import no_other_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamd.maintenance.verify_facts import VerifyFacts
    from streamd.maintenance.verify_report import VerifyReport

FIRST_LOOK_SECONDS: Final = 300.0  # after the start: let protection come first
LOOK_SECONDS: Final = 60.0
ARRIVE_SECONDS: Final = 120.0  # for what was healed to be sent; then it is not looked at again
_THREADS: Final = 2
_NICE: Final = 19
_SEED_BYTES: Final = 4
_LOG: Final = get_logger("verify")


class Verification:
    """Verifies the vault of one host. `lock` is that of all upkeep: one job at a time."""

    def __init__(self, host: Host, config: Callable[[], Config], lock: asyncio.Lock) -> None:
        self._host = host
        self._config = config
        self._lock = lock
        self._tried_us: dict[str, int] = {}
        self._failure: Failure | None = None

    async def run(self) -> None:
        """Keep the schedule until cancelled."""
        await self._show_last()
        await asyncio.sleep(FIRST_LOOK_SECONDS)
        while True:
            level = await self._due()
            if level is not None:
                await self._look_at(level)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at(self, level: str) -> None:
        """Verify because it is due; what a fault ended is tried again before its next turn."""
        started_us = self._host.clock.now_us()
        try:
            await self._verify(level, heal=self._config().verify.heal)
        except StreamdError as error:
            self._note_tried(level, started_us)
            fraction = fraction_of(self._host.entropy.token(8))
            now_us = self._host.clock.now_us()
            failure = after_failure(self._failure, level, now_us, fraction=fraction)
            self._failure = failure
            wait = (failure.retry_us - now_us) // MICROSECONDS if failure.retry_us else None
            _LOG.error(
                "verify-failed",
                level=level,
                reason=error.code,
                what=str(error),
                tries=failure.tries,
                retry_seconds=wait,
            )

    async def request(self, args: dict[str, Any]) -> "VerifyFacts":
        """Verify now; the answer to `verify` on the control socket."""
        from streamd.maintenance.verify_facts import verify_facts

        level = str(args.get("level", "structure"))
        if level not in LEVELS:
            raise UsageInvalid(f'there is no level "{level}"')
        report = await self._verify(
            level,
            heal=bool(args.get("heal")),
            seed=None if args.get("seed") is None else int(args["seed"]),
            draws=None if not args.get("frames") else int(args["frames"]),
        )
        return verify_facts(report)

    # -- schedule --------------------------------------------------------------------------------

    async def _due(self) -> str | None:
        host = self._host
        succeeded = await host.catalog.read(read_successes)
        last = {name: max(us, self._tried_us.get(name, 0)) for name, us in succeeded.items()}
        can_read = host.vault.keys.host.private is not None
        intervals, now_us = intervals_of(self._config().verify), host.clock.now_us()
        due = due_level(
            now_us,
            last,
            intervals,
            deepest="full" if can_read else "list",
            checkpoint_us=await host.catalog.read(_newest_checkpoint_us),
        )
        return with_retry(now_us, due, self._failure, intervals)

    async def _show_last(self) -> None:
        gauge = self._host.meters.metrics.verify_last_success_timestamp_seconds
        for level, at_us in (await self._host.catalog.read(read_successes)).items():
            gauge.labels(level).set(at_us / MICROSECONDS)

    # -- one look --------------------------------------------------------------------------------

    async def _verify(
        self, level: str, *, heal: bool, seed: int | None = None, draws: int | None = None
    ) -> "VerifyReport":
        from streamd.maintenance.verify_report import Level

        host = self._host
        wanted = Level(level)
        started_us = host.clock.now_us()
        async with self._lock:
            with _idle_threads() as pool, in_this_pool(pool):
                report = await verify_host(
                    host, wanted, heal=heal, seed=seed, draws=draws or self._config().verify.frames
                )
        self._note_tried(level, started_us)
        self._failure = after_look(self._failure, level)
        await self._tell(report, started_us)
        if host.uploader is not None:
            host.uploader.wake()
        return report

    def _note_tried(self, level: str, started_us: int) -> None:
        for contained in LEVELS[: LEVELS.index(level) + 1]:
            self._tried_us[contained] = started_us

    async def _tell(self, report: "VerifyReport", started_us: int) -> None:
        metrics = self._host.meters.metrics
        metrics.verify_last_duration_seconds.labels(report.level).set(report.seconds)
        metrics.verify_read_bytes_total.inc(report.read_bytes)
        metrics.verify_healed_chunks_total.inc(report.healed_count)
        for level in report.level.contained:
            metrics.verify_damaged_objects.labels(level).set(len(report.damage))
            if report.is_sound:
                await self._host.catalog.write(_write_success, level, started_us)
                metrics.verify_last_success_timestamp_seconds.labels(level).set(
                    started_us / MICROSECONDS
                )
        if report.level != LEVELS[0]:
            metrics.verify_lost_chunks.set(report.missing_count)
            metrics.verify_affected_versions.set(report.affected_count)
        told = _LOG.info if report.is_sound else _LOG.error
        told(
            "verified" if report.is_sound else "vault-damaged",
            level=str(report.level),
            damaged=len(report.damage),
            missing=report.missing_count,
            affected=report.affected_count,
            healed=report.healed_count,
            seconds=round(report.seconds, 1),
        )
        for damage in report.damage[:20]:
            _LOG.error("damaged", name=damage.name, what=damage.what)


async def verify_host(
    host: Host,
    level: Any,
    *,
    heal: bool,
    seed: int | None = None,
    draws: int | None = None,
) -> "VerifyReport":
    """Verify the vault of record of an open host, and heal if asked to.

    Who heals with a container has its uploader running.
    """
    from streamd.daemon.upkeep import site_of
    from streamd.maintenance.heal import Healer, heal_all, read_bad_frames
    from streamd.maintenance.verify import Verifier
    from streamd.maintenance.verify_documents import check_documents
    from streamd.maintenance.verify_versions import note_versions

    record = host.stores.remote or host.stores.local
    vault = replace(host.vault, store=record, distrust=no_other_layer)
    copies = [] if host.stores.remote is None else [host.stores.local]
    drawn = int.from_bytes(host.entropy.token(_SEED_BYTES), "big") if seed is None else seed

    async def look() -> "VerifyReport":
        report = await Verifier(
            vault,
            level,
            clock=host.clock,
            known=await host.catalog.read(known_sizes),
            stored=await host.catalog.read(stored_names),
            bad=await host.catalog.read(read_bad_frames),
            seed=drawn,
            draws=draws,
        ).run()
        await check_documents(vault, report)
        await note_versions(vault, report, host.stores.earlier)
        return report

    report = await look()
    if not heal or report.is_sound:
        return report
    site = site_of(host)
    await site.finish_puts()
    healer = partial(Healer, site, record, copies, host.stores.earlier)

    async def arrived(numbers: Sequence[int]) -> bool:
        if host.uploader is not None:
            host.uploader.wake()
        return await site.are_durable(numbers, patience_seconds=ARRIVE_SECONDS)

    return await heal_all(healer, report, look, arrived)


def intervals_of(config: VerifyConfig) -> Mapping[str, float]:
    """Return how often each level is due, in seconds; 0 means never."""
    return {
        "list": config.list_seconds,
        "structure": config.structure_seconds,
        "sample": config.sample_seconds,
        "full": config.full_seconds,
    }


def read_successes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return when each level last found the vault sound: µs, 0 for never."""
    return {level: get_int(connection, f"verified:{level}") for level in LEVELS}


def _write_success(connection: sqlite3.Connection, level: str, at_us: int) -> None:
    put_value(connection, f"verified:{level}", at_us)


def _newest_checkpoint_us(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT max(put_us) FROM object WHERE kind = 'C'").fetchone()
    return int(row[0] or 0)


def known_sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the size of every object that this host remembers, by name."""
    return dict(connection.execute("SELECT name, size FROM object"))


def stored_names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of what this host has put into the vault of record, and not deleted."""
    rows = connection.execute("SELECT name FROM object WHERE state = ?", (int(ObjectState.VAULT),))
    return {name for (name,) in rows}


@contextmanager
def _idle_threads() -> "Iterator[ThreadPoolExecutor]":
    """Lend threads that only get what nobody else wants of the processors."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="verify", initializer=_be_idle)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _be_idle() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
