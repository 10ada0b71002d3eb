"""`streamd doctor`: looks at the host and the vault, one thing at a time, and says what to change.

Reads and tries; the only thing it leaves behind is, where it may not delete, one tiny object below
`doctor/`. Nothing it finds ends it: what cannot be looked at is a line of its own.
"""

import os
import platform
import secrets
from collections.abc import Iterable, Iterator
from typing import Final

from streamd.config.host import check_host
from streamd.config.model import Config
from streamd.config.rules import own_directories
from streamd.daemon import control
from streamd.daemon.doctor_vault import examine_vault
from streamd.errors import ConfigInvalid, StreamdError
from streamd.policy import diagnosis
from streamd.policy.diagnosis import Check
from streamd.sources.filesystem import fanotify
from streamd.sources.filesystem.mounts import NETWORK_TYPES, read_mounts

_SECONDS: Final = 5.0
_HEX: Final = 16
_PROC_SYS: Final = "/proc/sys"


async def examine(config: Config) -> list[Check]:
    """Return every check of this host and of the vault."""
    checks = list(_host(config))
    whose, effective = await _capabilities(config)
    checks += diagnosis.capabilities(effective, whose)
    checks += await examine_vault(config, secrets.token_hex(_HEX))
    return checks


def _host(config: Config) -> Iterator[Check]:
    yield diagnosis.kernel(platform.release())
    yield from _configuration(config)
    for key in diagnosis.LIMITS:
        yield diagnosis.limit(key, _sysctl(key))
    for name, source in config.sources.items():
        for path in getattr(source, "paths", ()):
            yield diagnosis.watcher(name, path, *_watcher(os.fsencode(path)))
    for place, directory in own_directories(config).items():
        yield _space(".".join(map(str, place)), directory)
    yield _own_file_system(config)


def _configuration(config: Config) -> Iterable[Check]:
    try:
        check_host(config)
    except ConfigInvalid as error:
        for problem in error.problems or (str(error),):
            yield Check(
                area="host",
                name="configuration",
                verdict="fail",
                detail=problem,
                remedy="correct it; streamd config check shows the same list",
            )
    else:
        yield Check(area="host", name="configuration", verdict="ok", detail="fits this host")


def _sysctl(key: str) -> int | None:
    try:
        with open(os.path.join(_PROC_SYS, *key.split("."))) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _watcher(path: bytes) -> tuple[str, str]:
    """Return what would watch a path, and why not something better; tried, and given up again."""
    if not os.path.exists(path) or not os.access(path, os.R_OK):
        return "nothing", "it is not there, or may not be read"
    device = os.stat(path).st_dev
    mount = next((one for one in reversed(read_mounts()) if one.device == device), None)
    if mount is not None and mount.type in NETWORK_TYPES:
        return "polling", f"{mount.type.decode()}: the kernel is not told what others change"
    try:
        group = fanotify.Group()
    except OSError as error:
        return "inotify", f"fanotify: {error.strerror}"
    try:
        group.mark_filesystem(path)
    except OSError as error:
        return "inotify", f"fanotify on this file system: {error.strerror}"
    finally:
        group.close()
    return "fanotify", ""


def _space(name: str, directory: str) -> Check:
    probe = directory
    while not os.path.isdir(probe):
        probe = os.path.dirname(probe)
    disk = os.statvfs(probe)
    return diagnosis.space(
        name,
        directory,
        free_share=disk.f_bavail / max(disk.f_blocks, 1),
        inode_share=disk.f_favail / disk.f_files if disk.f_files else 1.0,
    )


def _own_file_system(config: Config) -> Check:
    """The catalog needs locks and memory maps that network file systems do not keep."""
    state = config.daemon.state
    while not os.path.isdir(state):
        state = os.path.dirname(state)
    device = os.stat(state).st_dev
    mount = next((one for one in reversed(read_mounts()) if one.device == device), None)
    if mount is not None and mount.type in NETWORK_TYPES:
        return Check(
            area="host",
            name="daemon.state file system",
            verdict="fail",
            detail=f"{config.daemon.state} is on {mount.type.decode()}",
            remedy="set daemon.state to a local file system: SQLite is not safe on this one",
        )
    kind = "unknown" if mount is None else mount.type.decode()
    return Check(area="host", name="daemon.state file system", verdict="ok", detail=kind)


async def _capabilities(config: Config) -> tuple[str, int]:
    """Return whose effective capabilities count, and which they are: the daemon's, if one runs."""
    try:
        status = await control.request(config.daemon.socket, "status", {}, _SECONDS)
        pid = int(str(status["pid"]))
        return f"the daemon (process {pid})", _effective(pid)
    except (StreamdError, OSError, KeyError, ValueError):
        return "this user", _effective(os.getpid())


def _effective(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0
