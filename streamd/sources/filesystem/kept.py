"""Groups that outlive the process: between two of them the service manager holds their queues.

What happens while no daemon runs is then in the queue of the next one. A kept group counts only if
its mark is still where it was: the kernel drops a mark silently when the file system is unmounted,
and an empty queue without a mark would look like a quiet file system.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from streamd.observe.logging import get_logger

PREFIX: Final = "fanotify-"
_LOG: Final = get_logger("watch")


class DescriptorStore(Protocol):
    """Who keeps descriptors while we are gone: systemd, through `daemon.notify.Notifier`."""

    def store_fd(self, name: str, fd: int) -> bool:
        """Keep a duplicate of `fd` under `name`; say whether somebody listens."""

    def forget_fd(self, name: str) -> bool:
        """Close what is kept under `name`."""


class KeptGroups:
    """The groups found at start, and the store that keeps those of now."""

    def __init__(
        self,
        store: DescriptorStore | None = None,
        found: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._store = store
        self._found = {
            name: list(fds) for name, fds in (found or {}).items() if name.startswith(PREFIX)
        }

    def claim(self, device: int) -> int | None:
        """Return the kept descriptor that still watches this file system; None: there is none."""
        fds = self._found.pop(_name(device), [])
        from streamd.sources.filesystem import fanotify  # where something is watched

        good = [fd for fd in fds if fanotify.watches(fd, device)]
        for fd in fds:
            if fd not in good[:1]:
                os.close(fd)
        if fds and not good:
            self.forget(device)
        return good[0] if good else None

    def keep(self, device: int, fd: int) -> None:
        """Have a new group kept from now on."""
        if self._store is not None:
            self._store.forget_fd(_name(device))  # a file system that had this number before
            self._store.store_fd(_name(device), fd)

    def forget(self, device: int) -> None:
        """Nobody watches this file system any more."""
        if self._store is not None:
            self._store.forget_fd(_name(device))

    def settle(self) -> None:
        """All sources have come: what none of them has claimed is let go."""
        for name, fds in self._found.items():
            _LOG.info("watch-released", name=name)
            for fd in fds:
                os.close(fd)
            if self._store is not None:
                self._store.forget_fd(name)
        self._found.clear()


def _name(device: int) -> str:
    return f"{PREFIX}{os.major(device)}-{os.minor(device)}"
