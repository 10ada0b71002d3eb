"""Metrics of the vault: requests to the container, uploads, retention, verification."""

import math
from typing import Final

from streamd.observe.metric_set import LATENCY_BUCKETS, MetricSet
from streamd.observe.names import SOURCE_LABEL
from streamd.policy.circuit import CAUSES, STATES
from streamd.policy.verify_schedule import LEVELS

OPERATIONS: Final = ("put", "get", "head", "list", "delete", "container", "other")
CODES: Final = (
    "2xx", "401", "403", "404", "407", "409", "412", "429", "4xx", "503", "5xx",
    "timeout", "connect", "cut", "tls", "credential", "cancelled",
)  # fmt: skip
RETRIED: Final = ("put", "get", "scan", "delete")
RETRY_REASONS: Final = ("storage-throttled", "vault-unreachable", "identity-unavailable")
BLOCKED_REASONS: Final = ("immutable", "hold", "refused")

_SOURCE: Final = SOURCE_LABEL


class VaultMetrics(MetricSet):
    """What is done with the vault beside writing to it."""

    def _declare_azure(self) -> None:
        operation: dict[str, tuple[str, ...]] = {"operation": OPERATIONS}
        self.azure_requests_total = self._counter(
            "azure_requests_total",
            "Requests to Azure, by operation and status code, or what happened instead.",
            ("operation", "code"),
            code=CODES,
            **operation,
        )
        self.azure_request_duration_seconds = self._histogram(
            "azure_request_duration_seconds",
            "Duration of a request to Azure.",
            ("operation",),
            LATENCY_BUCKETS,
            **operation,
        )
        self.azure_retries_total = self._counter(
            "azure_retries_total",
            "Requests to Azure that were tried again, and why.",
            ("operation", "reason"),
            operation=RETRIED,
            reason=RETRY_REASONS,
        )
        self.azure_throttled_seconds_total = self._counter(
            "azure_throttled_seconds_total", "Time waited because Azure asked to slow down."
        )
        self._declare_uplink()
        self._declare_upload()

    def _declare_uplink(self) -> None:
        self.azure_circuit_state = self._gauge(
            "azure_circuit_state",
            "1 for the state of the way to Azure: closed (all is well), open (nobody asks), probing"
            " (one request asks for all).",
            ("state",),
            state=STATES,
        )
        self.azure_circuit_state.labels("closed").set(1)
        self.azure_paused = self._gauge(
            "azure_paused", "1 for the cause for which requests to Azure pause.", ("cause",),
            cause=CAUSES,
        )  # fmt: skip
        self.azure_concurrency_limit = self._gauge(
            "azure_concurrency_limit", "Large requests that may be under way at once, adapted."
        )
        self.credential_expiry_timestamp_seconds = self._gauge(
            "credential_expiry_timestamp_seconds",
            "Unix time at which the credential in use ends: a SAS, a certificate, or a token that"
            " is renewed by itself at half its life.",
            ("kind",),
        )

    def _declare_upload(self) -> None:
        self.uploaded_bytes_total = self._counter("uploaded_bytes_total", "Bytes sent to Azure.")
        self.downloaded_bytes_total = self._counter(
            "downloaded_bytes_total", "Bytes received from Azure."
        )
        self.upload_pending_objects = self._gauge(
            "upload_pending_objects", "Objects durable locally that wait for their upload."
        )
        self.upload_pending_bytes = self._gauge(
            "upload_pending_bytes", "Bytes durable locally that wait for their upload."
        )
        self.clock_skew_seconds = self._gauge(
            "clock_skew_seconds",
            "This host's clock minus the storage's; 0 within what the way of an answer takes.",
        )
        self.spool_full = self._gauge(
            "spool_full", "1 while capture waits for room in the local copy."
        )
        self.spool_bytes = self._gauge("spool_bytes", "Bytes in the local copy.")
        self.spool_evictable_bytes = self._gauge(
            "spool_evictable_bytes", "Bytes in the local copy that Azure has too."
        )
        self.spool_free_bytes = self._gauge(
            "spool_free_bytes", "Bytes free in the file system of the local copy."
        )
        self.spool_bypassed_bytes_total = self._counter(
            "spool_bypassed_bytes_total", "Bytes sent to Azure around a full local copy."
        )
        self.spool_evicted_bytes_total = self._counter(
            "spool_evicted_bytes_total", "Bytes that left the local copy, Azure having them too."
        )
        self.upload_limit_bytes_per_second = self._gauge(
            "upload_limit_bytes_per_second",
            "What may be sent to the container now; +Inf: as much as the link takes.",
        )
        self.upload_limit_bytes_per_second.set(math.inf)
        self.upload_paused = self._gauge(
            "upload_paused", "1 while an operator lets nothing be sent to the container."
        )

    def _declare_verify(self) -> None:
        level: dict[str, tuple[str, ...]] = {"level": LEVELS}
        self.verify_last_success_timestamp_seconds = self._gauge(
            "verify_last_success_timestamp_seconds",
            "Unix time of the last verification of the level that found the vault sound.",
            ("level",),
            **level,
        )
        self.verify_damaged_objects = self._gauge(
            "verify_damaged_objects",
            "Objects that the last verification of the level found damaged or missing.",
            ("level",),
            **level,
        )
        self.verify_last_duration_seconds = self._gauge(
            "verify_last_duration_seconds",
            "Duration of the last verification of the level.",
            ("level",),
            **level,
        )
        self.verify_affected_versions = self._gauge(
            "verify_affected_versions",
            "Versions of files that the last verification found impossible to restore whole.",
        )
        self.verify_lost_chunks = self._gauge(
            "verify_lost_chunks",
            "Chunks that kept states need and that the last verification found nowhere.",
        )
        self.verify_healed_chunks_total = self._counter(
            "verify_healed_chunks_total",
            "Damaged chunks stored again from the local copy or the live files.",
        )
        self.verify_read_bytes_total = self._counter(
            "verify_read_bytes_total", "Bytes of content read to verify them."
        )

    def _declare_retention(self) -> None:
        self.retention_last_success_timestamp_seconds = self._gauge(
            "retention_last_success_timestamp_seconds",
            "Unix time of the last successful retention run.",
        )
        self.retention_overdue_recovery_points = self._gauge(
            "retention_overdue_recovery_points",
            "Recovery points the policy has expired that still exist.",
            (_SOURCE,),
        )
        self.retention_deleted_recovery_points_total = self._counter(
            "retention_deleted_recovery_points_total",
            "Recovery points removed by retention.",
            (_SOURCE,),
        )
        self.retention_blocked_total = self._counter(
            "retention_blocked_total",
            "Deletions that were refused, and why.",
            ("reason",),
            reason=BLOCKED_REASONS,
        )
        self.gc_reclaimed_bytes_total = self._counter(
            "gc_reclaimed_bytes_total", "Bytes reclaimed by deleting and rewriting objects."
        )
