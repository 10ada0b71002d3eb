"""The time zone of wall times: the configured one, or the system's."""

import datetime as dt
import os

_SYSTEM_FILE = "/etc/localtime"


def zone_of(name: str) -> dt.tzinfo:
    """Return the IANA zone `name`; for an empty name the system's, with its rules.

    The name was checked when the configuration was read. A system without zone data is in UTC.
    """
    if name == "UTC":
        return dt.UTC
    import zoneinfo

    if name:
        return zoneinfo.ZoneInfo(name)
    try:
        if wanted := os.environ.get("TZ", "").lstrip(":"):
            return zoneinfo.ZoneInfo(wanted)
        with open(_SYSTEM_FILE, "rb") as stream:
            return zoneinfo.ZoneInfo.from_file(stream, key=_system_name())
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return dt.UTC


def _system_name() -> str | None:
    """Return the name of the system's zone as far as the link to its file tells it."""
    _, found, name = os.path.realpath(_SYSTEM_FILE).partition("/zoneinfo/")
    return name if found else None
