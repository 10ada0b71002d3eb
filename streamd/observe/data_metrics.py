"""Metrics of the bytes: what each step of the pipeline does, and how much there is."""

from typing import Final

from streamd.observe.metric_set import LATENCY_BUCKETS, MetricSet
from streamd.observe.names import DESTINATIONS, SOURCE_LABEL

STEPS: Final = ("read", "chunk", "compress", "encrypt", "pack", "upload", "commit")
CHUNK_RESULTS: Final = ("new", "duplicate")

_SOURCE: Final = SOURCE_LABEL


class DataMetrics(MetricSet):
    """What moves through the pipeline, and what it adds up to."""

    def _declare_pipeline(self) -> None:
        step: dict[str, tuple[str, ...]] = {"step": STEPS}
        self.pipeline_bytes_total = self._counter(
            "pipeline_bytes_total",
            "Bytes that left the step: plain up to chunk, stored from compress on.",
            ("step",),
            **step,
        )
        self.pipeline_queue_items = self._gauge(
            "pipeline_queue_items", "Batches waiting in front of the step.", ("step",), **step
        )
        self.pipeline_queue_bytes = self._gauge(
            "pipeline_queue_bytes", "Bytes waiting in front of the step.", ("step",), **step
        )
        self.pipeline_queue_limit_bytes = self._gauge(
            "pipeline_queue_limit_bytes", "Most bytes that may wait there.", ("step",), **step
        )
        self.pipeline_backpressure_seconds_total = self._counter(
            "pipeline_backpressure_seconds_total",
            "Time producers were blocked because the queue in front of the step was full.",
            ("step",),
            **step,
        )
        self.pipeline_stage_duration_seconds = self._histogram(
            "pipeline_stage_duration_seconds",
            "Time the step worked on one batch.",
            ("step",),
            LATENCY_BUCKETS,
            **step,
        )

        self.compressed_bytes_total = self._counter(
            "compressed_bytes_total",
            "Plain bytes compressed, by how: `auto` chooses by what is short.",
            ("compression",),
            compression=("lz4", "zstd:1", "zstd:3", "zstd:6", "zstd:9"),  # what `auto` may choose
        )
        self.pack_target_bytes = self._gauge(
            "pack_target_bytes", "How large a pack is filled: it follows the uplink."
        )
        self.uplink_bytes_per_second = self._gauge(
            "uplink_bytes_per_second",
            "What the uplink took lately while something waited for it; 0 when none did yet.",
        )

    def _declare_data(self) -> None:
        self.source_bytes_total = self._counter(
            "source_bytes_total", "Bytes read from protected files.", (_SOURCE,)
        )
        self.deduplicated_bytes_total = self._counter(
            "deduplicated_bytes_total",
            "Source bytes not stored because the vault had their chunk already.",
            (_SOURCE,),
        )
        self.stored_bytes_total = self._counter(
            "stored_bytes_total",
            "Bytes newly stored for the source, deduplicated, compressed and encrypted.",
            (_SOURCE,),
        )
        self.chunks_total = self._counter(
            "chunks_total",
            "Chunks seen, by whether the vault had them.",
            ("result",),
            result=CHUNK_RESULTS,
        )
        self.protected_bytes = self._gauge(
            "protected_bytes", "Logical size of the newest state.", (_SOURCE,)
        )
        self.repository_bytes = self._gauge(
            "repository_bytes",
            "Bytes stored at the destination.",
            ("destination",),
            destination=DESTINATIONS,
        )
