"""Talking to systemd: readiness, signs of life, and descriptors that survive a restart.

Own code because descriptors have to be passed along (sd_notify(3), sd_listen_fds(3)), which no
small package does. Everything is a no-op when systemd did not start us.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

LISTEN_FDS_START: Final = 3
_PINGS_PER_PERIOD: Final = 3


class Notifier:
    """Sends states to the service manager named in `environ`, if there is one."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" is the printable form of the NUL that begins an abstract address
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def send(self, *states: str, fds: Sequence[int] = ()) -> bool:
        """Send assignments such as "READY=1"; return whether they were sent.

        False, too, when systemd does not take the message: a daemon does not die of that.
        """
        if not self._address:
            return False
        message = "\n".join(states).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.connect(self._address)
                socket.send_fds(sock, [message], list(fds))
            except OSError:
                return False
        return True

    def ready(self, status: str) -> bool:
        """Say that start or reload is finished."""
        return self.send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, status: str) -> bool:
        """Show a line in `systemctl status`."""
        return self.send(f"STATUS={_one_line(status)}")

    def reloading(self, monotonic_seconds: float) -> bool:
        """Say that a reload has begun; `ready` ends it."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic_seconds * 1e6)}")

    def stopping(self, status: str) -> bool:
        """Say that the end has begun."""
        return self.send("STOPPING=1", f"STATUS={_one_line(status)}")

    def ping(self) -> bool:
        """Give a sign of life. Only to be called when there is progress or nothing to do."""
        return self.send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for `seconds` more, from now, for the start or stop that is under way."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def store_fd(self, name: str, fd: int) -> bool:
        """Have systemd keep a duplicate of `fd`; the next start finds it in `listen_fds`.

        `name` must be free of colons and control characters, at most 255 characters.
        """
        return self.send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=(fd,))

    def forget_fd(self, name: str) -> bool:
        """Have systemd close what it keeps under `name`."""
        return self.send("FDSTOREREMOVE=1", f"FDNAME={name}")


def listen_fds(
    environ: MutableMapping[str, str] = os.environ, *, pid: int | None = None
) -> dict[str, list[int]]:
    """Return the descriptors systemd handed over, by name, and take the variables away.

    They become ours: not inherited by children. Empty when they are meant for another process.
    """
    values = [environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
    own_pid = os.getpid() if pid is None else pid
    if values[0] != str(own_pid) or not values[1].isdecimal():
        return {}
    count = int(values[1])
    names = values[2].split(":") if values[2] else []
    names += ["unknown"] * (count - len(names))
    found: dict[str, list[int]] = {}
    for fd, name in enumerate(names[:count], LISTEN_FDS_START):
        os.set_inheritable(fd, False)
        found.setdefault(name, []).append(fd)
    return found


def watchdog_interval_seconds(
    environ: Mapping[str, str] = os.environ, *, pid: int | None = None
) -> float | None:
    """Return how often to `ping`: three times per period; None when nobody watches."""
    period = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", "")
    own_pid = os.getpid() if pid is None else pid
    if not period.isdecimal() or int(period) == 0 or meant_for not in ("", str(own_pid)):
        return None
    return int(period) / 1e6 / _PINGS_PER_PERIOD


def _one_line(text: str) -> str:
    # a line break would begin another assignment
    return " ".join(text.splitlines())
