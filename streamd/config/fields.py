"""What one value of the configuration may be: checks and conversions used by `config.model`.

Each function takes what stood in the file and returns what the attribute holds, or raises
ValueError with a sentence for the operator.
"""

import posixpath
import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from streamd.config import units

NAME_RULE: Final = "a name is a-z, 0-9, dot, underscore and hyphen, at most 63 characters"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_COMPRESSION = re.compile(r"auto|lz4|none|zstd:(?:[1-9]|1\d)")
_PORT_MAX: Final = 65_535
_CONTAINER_NAME_MIN: Final = 3
_CONTAINER_NAME_MAX: Final = 63


def free_space(text: str) -> float:
    """Return a ratio for `10%`, or bytes for `20GiB`."""
    return units.parse_percent(text) if "%" in text else units.parse_size(text)


def free_space_text(value: float) -> str:
    """Return what `free_space` parses: floats are ratios, integers are bytes."""
    return units.format_size(value) if isinstance(value, int) else units.format_percent(value)


def name(value: str) -> str:
    """Return the name of a source, policy or credential if it may be one."""
    if not _NAME.fullmatch(value):
        raise ValueError(NAME_RULE)
    return value


def absolute_path(value: str) -> str:
    """Return an absolute path without superfluous slashes; `..` is refused, it could mislead."""
    if not value.startswith("/"):
        raise ValueError(f'"{value}" is a relative path: write an absolute one')
    if "\0" in value or ".." in value.split("/"):
        raise ValueError(f"{value!r} has a part that no plain path has")
    return "/" + posixpath.normpath(value).lstrip("/")


def file_name(value: str) -> str:
    """Return the name of a file in a directory."""
    if value in ("", ".", "..") or "/" in value or "\0" in value:
        raise ValueError(f"{value!r} is not the name of a file")
    return value


def argument(value: str) -> str:
    """Return a word of a command line."""
    if "\0" in value:
        raise ValueError(f"{value!r} is no argument that a program can be given")
    return value


def pattern(value: str) -> str:
    """Return a gitignore pattern if it can be understood."""
    import pathspec  # a configuration without patterns is read without it

    try:
        pathspec.GitIgnoreSpec.from_lines([value])
    except (ValueError, re.error) as error:
        raise ValueError(f'"{value}" is not a gitignore pattern') from error
    return value


def timezone(value: str) -> str:
    """Return the name of a time zone if this system knows it; empty means the system's."""
    if value in ("", "UTC"):
        return value
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(value)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError(f'"{value}" is not a known time zone, such as Europe/Berlin') from error
    return value


def weekdays(value: str) -> tuple[int, ...]:
    """Return day numbers (Monday is 0) for `mon-fri` or `sat,sun`."""
    days: set[int] = set()
    for part in value.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f'"{value}" is not a set of days: write for example mon-fri')
        start, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update(range(start, end + 1) if start <= end else {*range(start, 7), *range(end + 1)})
    return tuple(sorted(days))


def weekdays_text(days: tuple[int, ...]) -> str:
    """Return for example `mon-fri` or `sat,sun`."""
    runs: list[list[int]] = []
    for day in days:
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    names = [[_DAYS[day] for day in run] for run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else run[0] for run in names)


def compression(value: str) -> str:
    """Return the name of a codec."""
    if not _COMPRESSION.fullmatch(value):
        raise ValueError(f'"{value}" is none of auto, lz4, zstd:1 … zstd:19, none')
    return value


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return the halves of `127.0.0.1:9464` or `[::1]:9464`; None for off. Raises ValueError."""
    if text in ("", "off"):
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        raise ValueError(f'"{text}" is not an address and port: write for example 127.0.0.1:9464')
    return host.removeprefix("[").removesuffix("]"), int(port)


def listen(value: str) -> str:
    """Return an address and port, or what means none."""
    host_and_port(value)
    return value


def proxy_url(value: str) -> str:
    """Return the URL of a proxy. A password in it is refused, and not repeated."""
    parts = urlsplit(value)
    if parts.password:
        raise ValueError("a password does not belong in the configuration")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write the proxy as http://HOST:PORT")
    return value


def vault_url(value: str) -> str:
    """Return the URL of a directory or container. A secret in it is refused, and not repeated."""
    parts = urlsplit(value)
    if parts.query or parts.password or parts.fragment:
        raise ValueError("a URL with a query or a password: put the SAS token into sas_file")
    if parts.scheme == "file":
        if parts.netloc:
            raise ValueError(f'"{value}" names a host: a directory vault is file:///srv/vault')
        path = absolute_path(unquote(parts.path))
        if path == "/":
            raise ValueError("a vault cannot be the root directory")
        return f"file://{quote(path)}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'"{value}" is neither a file:/// nor an https:// URL')
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f'"{value}" is not encrypted: write https://')
    segments = parts.path.strip("/").split("/")
    # an address or a bare host carries the account in the path, as emulators do
    container = segments[1:2] if _account_is_in_path(parts.hostname) else segments[:1]
    if not container or not _is_container(container[0]):
        raise ValueError(f'"{value}" names no container: write https://ACCOUNT.…/CONTAINER/PREFIX')
    return value.rstrip("/")


def _is_container(text: str) -> bool:
    in_bounds = _CONTAINER_NAME_MIN <= len(text) <= _CONTAINER_NAME_MAX
    return in_bounds and _CONTAINER.fullmatch(text) is not None


def _account_is_in_path(host: str) -> bool:
    return "." not in host or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)
