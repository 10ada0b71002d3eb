"""Which file an entry is, when it is replaced between the listing and the look at its handle."""

from types import SimpleNamespace

import pytest

from streamd.catalog.lookup import NodeRow
from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.recognising import Recogniser
from streamd.sources.port import Listing

STAT = HostStat(EntryType.DIRECTORY, 0o755, 0, 0, 0, 5, 5, 7, 102, 1, 0)
REPLACED = STAT._replace(ctime_ns=9)


def recogniser_that_sees(generation: int, then: HostStat = REPLACED) -> Recogniser:
    """`then` is how the entry is when it is listed once more."""
    seen = {b"d": Identity(STAT.dev, STAT.ino, generation, 0)}
    source = SimpleNamespace(
        identify=lambda _directory, _names, *, births: seen,
        examine=lambda _directory, _names: SimpleNamespace(entries={b"d": then}),
    )
    lookup = SimpleNamespace(birth_of=lambda _fid: 0)
    return Recogniser(source, lookup, InFlight())


@pytest.mark.parametrize(
    ("known", "seen", "is_lost"), [(4, 30, True), (4, 4, False), (0, 30, False)]
)
def test_what_was_listed_as_captured_and_is_another_use_of_its_inode_was_replaced_since(
    known, seen, is_lost
) -> None:
    row = NodeRow(2, STAT, 1, known)  # to be looked at again, though it seems to be the same
    recogniser = recogniser_that_sees(seen)
    recogniser.look_ahead(b"/q", [b"d"], Listing({b"d": STAT}), {b"d": row})
    assert recogniser.is_lost(b"d", row, STAT) is is_lost


def test_what_changed_before_it_was_listed_is_told_apart_by_its_number_alone() -> None:
    row = NodeRow(2, STAT, 0, 4)
    now = STAT._replace(ctime_ns=6)
    recogniser = recogniser_that_sees(30)
    recogniser.look_ahead(b"/q", [b"d"], Listing({b"d": now}), {b"d": row})
    assert not recogniser.is_lost(b"d", row, now)
    assert not recogniser.is_still(row, b"d", now), "a new directory"


def test_handles_that_mean_something_else_for_good_keep_nothing_waiting() -> None:
    row = NodeRow(2, STAT, 1, 4)
    recogniser = recogniser_that_sees(30, then=STAT)
    recogniser.look_ahead(b"/q", [b"d"], Listing({b"d": STAT}), {b"d": row})
    assert not recogniser.is_lost(b"d", row, STAT)
