"""The way to the vault of record: its store, who governs it, and credentials that are renewed.

Somebody has to look at the credential's file when nothing is sent, and to ask whether the service
is back when nobody else has a reason to. That is `run`, one task of the daemon.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from streamd.errors import StreamdError
from streamd.storage.azure_access import AzureAccess
from streamd.storage.governor import Governor
from streamd.storage.port import BlobName, BlobStore

_LOOK_SECONDS: Final = 2.0
_IDLE_SECONDS: Final = 10.0  # for so long whoever has something to send may probe first
_PROBE_NAME: Final = BlobName("v/probe")  # an object that never exists
_Signature = tuple[tuple[int, int, int] | None, ...]


class Renewable(Protocol):
    """A store whose credentials can be exchanged while it is used."""

    skew_us: int | None  # this host's clock minus the service's; None: it has not answered yet

    async def renew(self, access: AzureAccess) -> None:
        """Use `access` from the next request on."""


class CredentialObserver(Protocol):
    """Told about credentials. Must not block and not raise."""

    def credential_read(self, access: AzureAccess) -> None:
        """A credential is in use from now on."""

    def credential_unreadable(self, error: StreamdError) -> None:
        """A new one could not be read; the old one stays in use."""


class CredentialFiles:
    """The files that credentials come from. `read` makes an access of them, and may raise."""

    def __init__(self, paths: tuple[str, ...], read: Callable[[], AzureAccess]) -> None:
        self._paths = paths
        self._read = read
        self._seen = self._signature()

    def changed(self) -> AzureAccess | None:
        """Return a new access if a file is another than last time; it blocks shortly.

        Raises SecretUnreadable; the next call then tries again.
        """
        now = self._signature()
        if now == self._seen:
            return None
        access = self._read()
        self._seen = now
        return access

    def _signature(self) -> _Signature:
        return tuple(_stamp(path) for path in self._paths)


class Uplink:
    """Keeps the way open; see the module."""

    def __init__(
        self,
        store: Renewable,
        governed: BlobStore,
        governor: Governor,
        files: CredentialFiles,
        observer: CredentialObserver,
    ) -> None:
        self._store = store
        self._governed = governed
        self._files = files
        self._observer = observer
        self._said = ""
        self.governor = governor

    async def run(self) -> None:
        """Look after credentials and the circuit until cancelled."""
        loop = asyncio.get_running_loop()
        due: float | None = None
        while True:
            await self.renew()
            if not self.governor.may_ask("get") or self.governor.circuit.state == "closed":
                due = None
            elif due is None:
                due = loop.time() + _IDLE_SECONDS
            elif loop.time() >= due:
                await self._probe()
                due = None
            await asyncio.sleep(_LOOK_SECONDS)

    async def renew(self) -> None:
        """Take up a credential whose file has changed."""
        try:
            access = await asyncio.to_thread(self._files.changed)
        except StreamdError as error:
            if str(error) != self._said:
                self._said = str(error)
                self._observer.credential_unreadable(error)
            return
        if access is None:
            return
        self._said = ""
        await self._store.renew(access)
        self._observer.credential_read(access)
        self.governor.hurry()

    async def skew_us(self) -> int | None:
        """Return how far this host's clock is ahead of the service's; None if that is unknown."""
        if self._store.skew_us is None:
            await self._probe()
        return self._store.skew_us

    async def _probe(self) -> None:
        try:
            await self._governed.get(_PROBE_NAME, offset=0, size=1)
        except StreamdError:
            return  # that there is no such object is the good answer; others the governor has seen


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
