"""Upkeep of the vault: retention, checkpoints, indexes, verification, and the local copy's bounds.

One job at a time. A failure is logged and counted, and the next turn tries again.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from streamd.catalog.objects import ObjectState
from streamd.config.model import DEFAULT_POLICY, Config
from streamd.daemon.host import Host
from streamd.daemon.opening import MetaKeys, lend_keys
from streamd.daemon.releasing import ReleaseFacts, release
from streamd.daemon.rules import rule_of, rules_of
from streamd.daemon.verification import Verification
from streamd.effects import MICROSECONDS
from streamd.errors import PolicyRefused, StreamdError, UsageInvalid, VaultUnreachable
from streamd.maintenance.site import Site
from streamd.observe.logging import get_logger
from streamd.vault.documents import put_documents

if TYPE_CHECKING:
    from streamd.maintenance.expire import RetentionReport
    from streamd.maintenance.facts import RunFacts
    from streamd.maintenance.runs import RunsReport

FIRST_RUN_SECONDS: Final = 120.0  # after the start: let protection come first
EVICT_SECONDS: Final = 60.0
DOCUMENTS_RETRY_SECONDS: Final = 3600.0
FIRST_KEEP_SECONDS: Final = 180.0  # and before the vault is proved for the first time
KEEP_SECONDS: Final = 900.0  # how often checkpoints and runs are looked at
SKEW_WARN_US: Final = 60 * MICROSECONDS
_LOG: Final = get_logger("upkeep")


class Upkeep:
    """Runs maintenance beside the capture."""

    def __init__(self, host: Host, config: Callable[[], Config]) -> None:
        self._host = host
        self._config = config
        self._lock = asyncio.Lock()
        self.verification = Verification(host, config, self._lock)
        self.last_success_us = 0

    async def run(self) -> None:
        """Keep the schedule until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._retention_loop(), name="retention")
            group.create_task(self._documents(), name="documents")
            group.create_task(self._keep_loop(), name="keep")
            group.create_task(self.verification.run(), name="verify")
            if self._host.stores.remote is not None:
                group.create_task(self._evict_loop(), name="evict")

    async def _retention_loop(self) -> None:
        await asyncio.sleep(FIRST_RUN_SECONDS)
        while True:
            try:
                if self._host.vault.keys.host.is_full:
                    await self.run_request({})
                else:
                    _LOG.info("retention-needs-kit", remedy="streamd retention run --kit FILE")
            except StreamdError as error:
                _LOG.error("retention-failed", reason=error.code, what=str(error))
            await asyncio.sleep(self._config().retention.interval_seconds)

    async def _documents(self) -> None:
        """After an upgrade, give the vault the rescue script and the format of this release."""
        stores = self._host.stores
        for store in filter(None, (stores.local, stores.remote)):
            while True:
                try:
                    for name in await put_documents(store):
                        _LOG.info("document-stored", name=name)
                    break
                except StreamdError as error:
                    _LOG.warning("document-not-stored", reason=error.code, what=str(error))
                await asyncio.sleep(DOCUMENTS_RETRY_SECONDS)

    async def run_request(self, args: dict[str, object]) -> "RunFacts":
        """Run retention now; the answer to `retention-run` on the control socket."""
        from streamd.maintenance.facts import run_facts

        with self._refusals_counted():
            return run_facts(await self._retention(args))

    async def release_request(self, args: dict[str, object]) -> ReleaseFacts:
        """Let a suspect source be thinned again; the answer to `retention-release`."""
        return await release(self._host, args)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        """Count what was not deleted because somebody forbids it: the container, or the rules."""
        try:
            yield
        except PolicyRefused as refused:
            reason = str(refused.facts.get("reason", "refused"))
            self._host.meters.metrics.retention_blocked_total.labels(reason).inc()
            raise

    async def _retention(self, args: dict[str, object]) -> "RetentionReport":
        from streamd.maintenance import expire
        from streamd.maintenance.points import timezone_name

        host, config = self._host, self._config()
        async with self._lock:
            report = await expire.run(
                site_of(host, meta_keys_of(args)),
                rules_of(config),
                default=rule_of(config.policies.get("default", DEFAULT_POLICY)),
                quiesce=host.pipeline.quiesce,
                timezone=timezone_name(config.timezone),
                only=str(args["source"]) if args.get("source") else None,
                accept_loss=bool(args.get("accept_loss")),
                now_us=await storage_now_us(host),
            )
        self._measure(report)
        if host.uploader is not None:
            host.uploader.wake()
        return report

    def _measure(self, report: "RetentionReport") -> None:
        metrics = self._host.meters.metrics
        self.last_success_us = self._host.clock.now_us()
        metrics.retention_last_success_timestamp_seconds.set_to_current_time()
        metrics.gc_reclaimed_bytes_total.inc(report.reclaimed_bytes)
        for points in report.points:
            if points.source in self._config().sources:
                metrics.set_recovery_points(points.source, report.kept_by_class(points.source))
                metrics.retention_overdue_recovery_points.labels(points.source).set(
                    points.overdue_count
                )
                metrics.retention_deleted_recovery_points_total.labels(points.source).inc(
                    points.expired_count
                )
        _LOG.info(
            "retention",
            deleted=report.deleted_objects,
            reclaimed_bytes=report.reclaimed_bytes,
            checkpoints=report.checkpoints_written,
            postponed=report.is_postponed,
        )

    async def _keep_loop(self) -> None:
        """Write checkpoints and runs when they are due: they bound what a reader has to replay.

        Soon for the first time: a host that is up for minutes only, or that has met a damaged
        journal and needs a checkpoint behind it, must not wait for its turn.
        """
        await asyncio.sleep(FIRST_KEEP_SECONDS)
        while True:
            try:
                await self.keep()
            except StreamdError as error:
                _LOG.error("keep-failed", reason=error.code, what=str(error))
            await asyncio.sleep(KEEP_SECONDS)

    async def keep(self) -> None:
        """Write what is due now."""
        host = self._host
        with self._refusals_counted():
            written, report = await self._keep(host)
        if host.uploader is not None:
            host.uploader.wake()
        if written or report.history_runs or report.index_chunks is not None:
            _LOG.info(
                "kept",
                checkpoints=written,
                history_runs=report.history_runs,
                index_chunks=report.index_chunks,
                dropped=report.dropped,
            )

    async def _keep(self, host: Host) -> "tuple[int, RunsReport]":
        from streamd.maintenance.checkpoint_due import checkpoint_due
        from streamd.maintenance.runs import keep_runs

        async with self._lock:
            site, record = site_of(host), host.stores.remote or host.stores.local
            await site.finish_puts()
            written = await checkpoint_due(site, self._config().sources)
            return written, await keep_runs(site, record)

    async def _evict_loop(self) -> None:
        while True:
            await asyncio.sleep(EVICT_SECONDS)
            async with self._lock:
                local, copy = self._config().local, self._host.copy
                assert local is not None
                assert copy is not None
                count, size = await copy.expire(
                    keep_seconds=local.keep_seconds, now_us=self._host.clock.now_us()
                )
                room = await copy.room()
                size += await copy.evict(room.copy_bytes - local.max_size_bytes)  # a new bound
                self._host.meters.copy(room)
                if size:
                    _LOG.info("evicted", objects=count, bytes=size)


async def storage_now_us(host: Host) -> int:
    """Return the time by the storage's clock: a host's that is ahead must not expire anything.

    A directory has no clock of its own. Raises VaultUnreachable when a container does not say.
    """
    now_us = host.clock.now_us()
    uplink = host.stores.uplink
    if uplink is None:
        return now_us
    skew_us = await uplink.skew_us()
    if skew_us is None:
        raise VaultUnreachable(
            "the storage does not say what time it is", endpoint=host.config.vault.url
        )
    host.meters.metrics.clock_skew_seconds.set(skew_us / MICROSECONDS)
    if abs(skew_us) > SKEW_WARN_US:
        _LOG.warning(
            "clock-skewed",
            seconds=skew_us / MICROSECONDS,
            remedy="have the host follow a time server; retention goes by the storage's clock",
        )
    return now_us - skew_us


def meta_keys_of(args: dict[str, object]) -> MetaKeys:
    """Return the keys that a request has lent, see `cli.retention`. Raises UsageInvalid."""
    try:
        return msgspec.convert(args.get("meta_keys", {}), MetaKeys, strict=False, str_keys=True)
    except msgspec.ValidationError:
        raise UsageInvalid("the keys of the request do not parse") from None


def site_of(host: Host, meta_keys: MetaKeys | None = None) -> Site:
    """Return what maintenance works on; a write-only host is lent the META keys for one run."""
    state = ObjectState.VAULT if host.stores.remote is None else ObjectState.LOCAL
    return Site(
        vault=lend_keys(host.vault, meta_keys),
        catalog=host.catalog,
        writer=host.writer,
        clock=host.clock,
        put_state=state,
    )
