"""What happens, as metrics: one listener for the pipeline, the stores and the sources."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from streamd.catalog.objects import ObjectRow
from streamd.daemon.uplink_meters import UplinkMeters
from streamd.effects import MICROSECONDS
from streamd.errors import StreamdError
from streamd.observe.logging import get_logger
from streamd.observe.unheard import unheard
from streamd.pipeline.budget import Budget
from streamd.pipeline.capture import Pipeline
from streamd.policy.spool import Room
from streamd.policy.traffic import Allowance

if TYPE_CHECKING:  # a command that ends soon does without
    from prometheus_client import CollectorRegistry

_LOG: Final = get_logger("pipeline")
_SEAL_STEPS: Final = ("chunk", "compress", "encrypt")  # one thread hop does all three


class Meters(UplinkMeters):
    """Implements the observers of the pipeline, the uploader, the sources and the stores.

    Without a registry nobody asks for the metrics, and there are none.
    """

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        if registry is None:
            self.metrics = unheard()
        else:
            from streamd.observe.metrics import Metrics

            self.metrics = Metrics(registry)
        self.source_bytes = self.stored_bytes = 0  # since the start
        self.has_remote = True
        self._last_failure = ""
        self._blocked: dict[str, float] = {}
        self._compressed: dict[str, int] = {}

    # -- pipeline --------------------------------------------------------------------------------

    def step(self, step: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """One batch passed a step."""
        metrics = self.metrics
        if step == "seal":
            for name in _SEAL_STEPS:
                size = bytes_in if name == "chunk" else bytes_out
                metrics.pipeline_bytes_total.labels(name).inc(size)
            metrics.pipeline_stage_duration_seconds.labels("compress").observe(seconds)
            return
        metrics.pipeline_bytes_total.labels(step).inc(bytes_out)
        metrics.pipeline_stage_duration_seconds.labels(step).observe(seconds)

    def files(self, source: str, outcome: str, count: int) -> None:
        """Entries were read."""
        self.metrics.files_processed_total.labels(source, outcome).inc(count)

    def read(self, source: str, size: int, stored: int, duplicate: int) -> None:
        """Content of a source was read and sealed."""
        self.source_bytes += size
        self.stored_bytes += stored
        self.metrics.source_bytes_total.labels(source).inc(size)
        self.metrics.stored_bytes_total.labels(source).inc(stored)
        self.metrics.deduplicated_bytes_total.labels(source).inc(duplicate)

    def chunks(self, new: int, duplicate: int) -> None:
        """Chunks were found new, or known."""
        self.metrics.chunks_total.labels("new").inc(new)
        self.metrics.chunks_total.labels("duplicate").inc(duplicate)

    def committed(self, source: str, delays: list[float]) -> None:
        """Changes became durable in the local vault."""
        for destination in ("local",) if self.has_remote else ("local", "vault"):
            histogram = self.metrics.change_protection_delay_seconds.labels(source, destination)
            for delay in delays:
                histogram.observe(delay)

    def queues(self, pipeline: Pipeline, budget: Budget) -> None:
        """Export the depth of the queues; called now and then."""
        metrics = self.metrics
        for step, channel in (("read", pipeline.intake), ("pack", pipeline.packer.full)):
            metrics.pipeline_queue_items.labels(step).set(channel.item_count)
            metrics.pipeline_queue_bytes.labels(step).set(channel.byte_count)
            metrics.pipeline_queue_limit_bytes.labels(step).set(channel.bytes_max)
            self._blocked_for(step, channel.blocked_seconds)
        metrics.pipeline_queue_bytes.labels("compress").set(budget.used_bytes)
        metrics.pipeline_queue_limit_bytes.labels("compress").set(budget.limit_bytes)
        self._blocked_for("compress", budget.blocked_seconds)

    def _blocked_for(self, step: str, total: float) -> None:
        before = self._blocked.get(step, 0.0)
        if total > before:
            self.metrics.pipeline_backpressure_seconds_total.labels(step).inc(total - before)
            self._blocked[step] = total

    def backlog(self, count: int, size: int) -> None:
        """So much is durable here and not yet in the vault of record."""
        self.metrics.upload_pending_objects.set(count)
        self.metrics.upload_pending_bytes.set(size)

    def adapted(
        self, compressed: Mapping[str, int], pack_bytes: int, uplink_bytes_per_second: float
    ) -> None:
        """What compression and packs were fitted to what is short."""
        metrics = self.metrics
        for setting, size in list(compressed.items()):
            before = self._compressed.get(setting, 0)
            metrics.compressed_bytes_total.labels(setting).inc(size - before)
            self._compressed[setting] = size
        metrics.pack_target_bytes.set(pack_bytes)
        metrics.uplink_bytes_per_second.set(uplink_bytes_per_second)

    def traffic(self, allowed: Allowance) -> None:
        """What may be sent to the container changed, or was looked at again."""
        limit = allowed.bytes_per_second
        self.metrics.upload_limit_bytes_per_second.set(math.inf if limit is None else limit)
        self.metrics.upload_paused.set(allowed.is_paused)

    # -- the local copy --------------------------------------------------------------------------

    def spool_filled(self, *, is_full: bool) -> None:
        """Capture waits for room in the local copy, or does so no longer."""
        self.metrics.spool_full.set(is_full)

    def spool_bypassed(self, size_bytes: int) -> None:
        """An object went to the container directly."""
        self.metrics.spool_bypassed_bytes_total.inc(size_bytes)

    def evicted(self, size_bytes: int) -> None:
        """The local copy let go what the container has too."""
        self.metrics.spool_evicted_bytes_total.inc(size_bytes)

    def copy(self, room: Room) -> None:
        """How full the local copy is."""
        self.metrics.spool_bytes.set(room.copy_bytes)
        self.metrics.spool_evictable_bytes.set(room.evictable_bytes)
        self.metrics.spool_free_bytes.set(room.free_bytes)

    # -- uploads ---------------------------------------------------------------------------------

    def uploaded(self, row: ObjectRow, seconds: float, delays: dict[str, float]) -> None:
        """An object arrived in the vault of record; for a segment, how long changes had waited."""
        for source, delay in delays.items():
            self.metrics.change_protection_delay_seconds.labels(source, "vault").observe(delay)
        self.metrics.pipeline_bytes_total.labels("upload").inc(row.size)
        self.metrics.pipeline_stage_duration_seconds.labels("upload").observe(seconds)
        if self._last_failure:
            _LOG.info("upload-resumed", object=row.name)
            self._last_failure = ""

    def upload_failed(self, error: StreamdError) -> None:
        """Uploading pauses; said once per kind of failure."""
        if error.code != self._last_failure:
            _LOG.warning("upload-paused", reason=error.code, what=str(error), remedy=error.advice())
            self._last_failure = error.code

    # -- sources ---------------------------------------------------------------------------------

    def watching(self, source: str, modes: Mapping[bytes, str]) -> None:
        """The marks of a source are in place."""
        self.metrics.set_watch_modes(source, modes.values())
        _LOG.info("watching", source=source, modes=sorted(set(modes.values())))

    def command_ran(self, source: str, result: str, seconds: float) -> None:
        """The program of a command source ended."""
        self.metrics.command_runs_total.labels(source, result).inc()
        self.metrics.command_last_duration_seconds.labels(source).set(seconds)
        if result == "ok":
            self.metrics.command_last_success_timestamp_seconds.labels(source).set_to_current_time()

    def hook_ran(self, source: str, hook: str, result: str) -> None:
        """A hook of a source ended."""
        self.metrics.hook_runs_total.labels(source, hook, result).inc()

    def events(self, source: str, count: int) -> None:
        """Events were read."""
        self.metrics.watch_events_total.labels(source).inc(count)

    def overflow(self, source: str) -> None:
        """Events were lost."""
        self.metrics.watch_overflows_total.labels(source).inc()

    def pass_again(self, source: str) -> None:
        """A live cut was looked at once more, for what it found can not all be of one instant."""
        self.metrics.cut_passes_repeated_total.labels(source).inc()

    def unsettled(self, source: str) -> None:
        """A live cut did not settle; a gap says so."""
        self.metrics.cuts_unsettled_total.labels(source).inc()

    def large_files(self, source: str, count: int) -> None:
        """So many large files wait to be captured by themselves."""
        self.metrics.large_files_waiting.labels(source).set(count)

    def scan_began(self, source: str) -> None:
        """A scan of a source began."""
        self.metrics.rescan_in_progress.labels(source).set(1)

    def missed(self, source: str, reason: str, count: int) -> None:
        """A rescan found so many changes that no event had announced."""
        self.metrics.rescan_missed_changes_total.labels(source, reason).inc(count)

    def reread(self, source: str, result: str) -> None:
        """An unchanged file was read again; `result` says what was found."""
        self.metrics.reread_files_total.labels(source, result).inc()

    def canary_arrived(self, source: str, destination: str, seconds: float) -> None:
        """A canary is durable at a destination, so long after it was written."""
        metrics = self.metrics
        metrics.canary_round_trip_seconds.labels(source, destination).observe(seconds)
        gauge = metrics.canary_last_success_timestamp_seconds.labels(source, destination)
        gauge.set_to_current_time()

    def canary_late(self, source: str, destination: str) -> None:
        """A canary has not become durable at a destination in time."""
        self.metrics.canary_late_total.labels(source, destination).inc()

    def scan_ended(self, source: str, reason: str, seconds: float) -> None:
        """A scan ended."""
        metrics = self.metrics
        metrics.rescan_in_progress.labels(source).set(0)
        metrics.rescan_last_duration_seconds.labels(source).set(seconds)
        metrics.rescan_last_success_timestamp_seconds.labels(source).set_to_current_time()
        metrics.rescans_total.labels(source, reason, "ok").inc()

    def standing(self, source: str, *, dirty: int, fuzzy: int, entries: int) -> None:
        """How a source stands now."""
        metrics = self.metrics
        metrics.unprotected_changes.labels(source).set(dirty)
        metrics.fuzzy_files.labels(source).set(fuzzy)
        metrics.catalog_entries.labels(source, "file").set(entries)

    def suspect(self, source: str, *, is_suspect: bool) -> None:
        """A source was damaged in mass and nothing of it is thinned, or not."""
        self.metrics.source_suspect.labels(source).set(is_suspect)

    def classes(self, source: str, counts: Mapping[str, int]) -> None:
        """So many entries of a source are in each class."""
        for name, count in counts.items():
            self.metrics.files.labels(source, name).set(count)

    def point(self, source: str, at_us: int) -> None:
        """A new restorable state exists."""
        self.metrics.recovery_point_last_success_timestamp_seconds.labels(source).set(
            at_us / MICROSECONDS
        )

    def loop_was_late(self, seconds: float) -> None:
        """The event loop woke somebody up so late."""
        self.metrics.event_loop_lag_seconds.observe(seconds)
