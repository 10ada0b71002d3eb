"""What the catalog knows of mass damage to a source: the last hour, and whether it is suspect.

Both are written in the transaction that records the changes, with the mark that the journal gets:
a crash leaves all of it or nothing. The mark is what counts for retention, for every host and after
the loss of this catalog; what is here is for the daemon to show, and for not marking twice.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from streamd.catalog.db import get_bytes, put_value
from streamd.catalog.tree import SourceState
from streamd.model.entry import SourceInfo
from streamd.model.ids import SourceId
from streamd.model.record import RELEASED, SUSPECT, Incident
from streamd.policy import retention, suspicion
from streamd.policy.suspicion import Window
from streamd.policy.toll import Counts

_INCIDENT: Final = msgspec.msgpack.Decoder(Incident)
_INFO: Final = msgspec.msgpack.Decoder(SourceInfo)
_WINDOW: Final = msgspec.msgpack.Decoder(Window)
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_NOTHING: Final = Counts()


class KnownSource(NamedTuple):
    """A source that has history, configured or not."""

    number: int
    id: SourceId
    info: SourceInfo


def incident_of(connection: sqlite3.Connection, name: str) -> Incident | None:
    """Return the incident for which a source is suspect; None: it is not."""
    stored = get_bytes(connection, _incident_key(name))
    return _INCIDENT.decode(stored) if stored else None


def identity_of(connection: sqlite3.Connection, name: str) -> KnownSource | None:
    """Return what the journal says about a source besides its files; None: it is not known."""
    row = connection.execute(
        "SELECT number, id, info FROM source WHERE name = ? AND info != x''", (name,)
    ).fetchone()
    if row is None:
        return None
    return KnownSource(row[0], SourceId(row[1]), _INFO.decode(row[2]))


def suspects_among(connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    """Return those of some sources that are suspect."""
    return [name for name in names if incident_of(connection, name) is not None]


def weigh(connection: sqlite3.Connection, state: SourceState, *, at_us: int) -> Incident | None:
    """Add what a transaction at `at_us` did to a source; return the mark that it makes due.

    To be called before the source's row is written, whose time is that of the record before.
    """
    counts = state.toll.counts()
    if counts == _NOTHING:
        return None
    key = _window_key(state.name)
    stored = get_bytes(connection, key)
    window = _WINDOW.decode(stored) if stored else Window()
    window = window.add(
        counts,
        at_us=at_us,
        last_us=_last_us(connection, state.number),
        entries_before=state.entries_before,
    )
    put_value(connection, key, _ENCODE(window))
    alarm = window.alarm(state.key_count // 2)
    if alarm is None or incident_of(connection, state.name) is not None:
        return None
    incident = Incident(
        suspicion.LABEL,
        hold_until_us=retention.FOREVER_US,
        kind=SUSPECT,
        point_us=alarm.before_us,
        reason=alarm.reason,
        file_count=alarm.file_count,
    )
    note(connection, state.name, incident)
    return incident


def note(connection: sqlite3.Connection, name: str, mark: Incident) -> None:
    """Remember what a mark of the journal says; a release begins a new hour."""
    if mark.kind == SUSPECT:
        put_value(connection, _incident_key(name), _ENCODE(mark))
    elif mark.kind == RELEASED:
        put_value(connection, _incident_key(name), b"")
        put_value(connection, _window_key(name), b"")


def recall(connection: sqlite3.Connection, name: str, incident: Incident) -> None:
    """Take over what the journal says, if this catalog never knew: a lost one was made anew.

    One that was released since then is known, and stays released.
    """
    connection.execute(
        "INSERT OR IGNORE INTO meta VALUES (?, ?)", (_incident_key(name), _ENCODE(incident))
    )


def _last_us(connection: sqlite3.Connection, number: int) -> int:
    row = connection.execute("SELECT last_us FROM source WHERE number = ?", (number,)).fetchone()
    return int(row[0])


def _incident_key(name: str) -> str:
    return f"suspect:{name}"


def _window_key(name: str) -> str:
    return f"damage:{name}"
