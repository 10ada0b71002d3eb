"""Names of users and groups, looked up rarely and never failing."""

import grp
import os
import pwd
from typing import Final

from streamd.effects import Clock

_FRESH_SECONDS: Final = 60.0


class OwnerNames:
    """uid → user name and gid → group name; b"" when there is none.

    Answers are kept for a minute: an unknown owner may be added to the directory service later.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}
        self._fresh_until = clock.monotonic() + _FRESH_SECONDS

    def user(self, uid: int) -> bytes:
        """Return the name of user `uid`."""
        self._expire()
        name = self._users.get(uid)
        if name is None:
            try:
                name = os.fsencode(pwd.getpwuid(uid).pw_name)
            except (KeyError, OSError, OverflowError, ValueError):
                name = b""
            self._users[uid] = name
        return name

    def group(self, gid: int) -> bytes:
        """Return the name of group `gid`."""
        self._expire()
        name = self._groups.get(gid)
        if name is None:
            try:
                name = os.fsencode(grp.getgrgid(gid).gr_name)
            except (KeyError, OSError, OverflowError, ValueError):
                name = b""
            self._groups[gid] = name
        return name

    def _expire(self) -> None:
        now = self._clock.monotonic()
        if now >= self._fresh_until:
            self._users.clear()
            self._groups.clear()
            self._fresh_until = now + _FRESH_SECONDS
