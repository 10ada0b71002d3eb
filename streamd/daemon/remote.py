"""The part of the composition that is of use with a container only: its store, and who watches it.

Loaded by `compose` when a configuration names a container, and by nobody else.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from streamd.config.model import Config
from streamd.daemon.credentials import access_of, credential_files
from streamd.daemon.uplink_meters import silent
from streamd.effects import Clock, Entropy
from streamd.errors import StreamdError
from streamd.format.layout import parse_pack_name
from streamd.policy.backoff import Backoff
from streamd.storage.azure import AzureBlobStore
from streamd.storage.azure_examine import Asking
from streamd.storage.azure_observer import RequestObserver
from streamd.storage.governed import GovernedBlobStore
from streamd.storage.governor import Governor, GovernorObserver
from streamd.storage.metered import MeteredBlobStore, StoreObserver
from streamd.storage.port import BlobStore
from streamd.storage.rate import ByteRate
from streamd.storage.retrying import RetryingBlobStore
from streamd.storage.uplink import CredentialObserver, Uplink
from streamd.storage.versions import TRIED_MAX, EarlierVersions


class RemoteObserver(
    StoreObserver, GovernorObserver, RequestObserver, CredentialObserver, Protocol
):
    """Told of everything that happens on the way to the container."""

    def retried(self, operation: str, error: StreamdError) -> None:
        """An operation is tried again."""


def open_remote(
    config: Config,
    *,
    observer: RemoteObserver | None,
    clock: Clock,
    entropy: Entropy,
    give_up_after_seconds: float | None,
    rates: tuple[ByteRate | None, ByteRate | None],
) -> tuple[Uplink, BlobStore, tuple[BlobStore, ...]]:
    """Return the container's store: retrying, governed, metered, from the outside in.

    And stores of the same make for versions that the container may have kept.
    """
    observer = observer or silent()
    files = credential_files(config)
    access = access_of(config)
    sending, receiving = rates
    plain = AzureBlobStore(
        access, sending=sending, receiving=receiving, observer=observer, clock=clock
    )
    governor = Governor(clock, entropy, observer)
    governed = GovernedBlobStore(MeteredBlobStore(plain, observer, clock), governor, _is_pack)
    observer.credential_read(access)
    observer.window_changed(governor.window)

    def patient(store: BlobStore) -> BlobStore:
        return RetryingBlobStore(
            store,
            Backoff(),
            clock,
            entropy,
            give_up_after_seconds=give_up_after_seconds,
            on_retry=observer.retried,
        )

    earlier = tuple(
        patient(GovernedBlobStore(EarlierVersions(plain, number), governor, _is_pack))
        for number in range(TRIED_MAX)
    )
    return Uplink(plain, governed, governor, files, observer), patient(governed), earlier


def _is_pack(name: str) -> bool:
    return parse_pack_name(name) is not None


@asynccontextmanager
async def lend_container(config: Config) -> AsyncIterator[Asking]:
    """Lend the container itself, without retries, to whoever looks at what it is like."""
    store = AzureBlobStore(access_of(config))
    try:
        yield store
    finally:
        await store.aclose()


async def prepare_container(config: Config) -> None:
    """For `streamd init`: create the container if the configuration says so.

    No other operation does: a container that vanishes later is to be undeleted, not made anew.
    """
    store = AzureBlobStore(access_of(config))
    try:
        if config.vault.create_container:
            await store.ensure_container()
    finally:
        await store.aclose()
