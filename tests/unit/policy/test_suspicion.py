"""When a source counts as being destroyed, since when, and what ordinary work does not look like."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.model.entry import ContentRun, EntryType, FileVersion, VersionFlag
from streamd.policy import suspicion
from streamd.policy.suspicion import BUCKET_US, BUCKETS_MAX, FILES_MIN, Alarm, Window
from streamd.policy.toll import Counts, Toll, ending, is_random

NOON_US = 1_700_000_000_000_000


def window(*commits: Counts, peak: int, every_us: int = BUCKET_US) -> Window:
    """Return the window after commits, each of which was preceded by a record a second before."""
    found = Window()
    for index, counts in enumerate(commits):
        at_us = NOON_US + index * every_us
        found = found.add(counts, at_us=at_us, last_us=at_us - 1_000_000, entries_before=peak)
    return found


def test_nothing_is_suspect_at_the_beginning() -> None:
    assert Window().alarm(0) is None


def test_files_that_turn_random_are_encryption_however_large_the_source_is() -> None:
    found = window(Counts(rewritten=120, scrambled=FILES_MIN), peak=1_000_000)
    assert found.alarm(1_000_000) == Alarm("encrypted", 100, NOON_US - 1_000_000)


def test_fewer_than_a_hundred_files_are_no_mass() -> None:
    assert window(Counts(rewritten=99, scrambled=99), peak=99).alarm(99) is None
    assert window(Counts(gone=99, gone_plain=99), peak=99).alarm(0) is None


def test_encryption_needs_more_than_half_of_what_is_rewritten() -> None:
    half = Counts(rewritten=300, scrambled=150)
    assert window(half, peak=1000).alarm(1000) is None
    assert window(half, Counts(rewritten=1, scrambled=1), peak=1000).alarm(1000) is not None


def test_encrypted_copies_beside_removed_originals_are_encryption() -> None:
    swapped = Counts(swapped=150, born_random=150, gone_plain=150, gone=150)
    assert window(swapped, peak=5000).alarm(5000) == Alarm("encrypted", 150, NOON_US - 1_000_000)


def test_copies_found_long_before_the_originals_are_missed_are_encryption_of_most_files() -> None:
    # A scan after a start finds what is new first, and in its end what is gone.
    commits = Counts(born_random=400), Counts(gone=400, gone_plain=400)
    found = window(*commits, peak=900)
    assert found.alarm(500) == Alarm("encrypted", 400, NOON_US + BUCKET_US - 1_000_000)
    assert window(*commits, peak=2000).alarm(2000) is None  # a fifth of a large source


def test_more_than_half_of_the_entries_gone_is_deletion() -> None:
    half, more = Counts(gone=500, gone_plain=500), Counts(gone=501, gone_plain=501)
    assert window(half, peak=1000).alarm(500) is None
    assert window(more, peak=1000).alarm(499) == Alarm("deleted", 501, NOON_US - 1_000_000)


def test_what_comes_and_goes_is_no_loss() -> None:
    found = Window()
    for minute in range(30):  # a spool: a thousand in, a thousand out
        at_us = NOON_US + minute * BUCKET_US
        counts = Counts(gone=1000, gone_plain=1000)
        found = found.add(counts, at_us=at_us, last_us=at_us, entries_before=1200)
        assert found.alarm(1100) is None


@pytest.mark.parametrize("field", ["emptied", "renamed"])
def test_emptied_and_renamed_files_count_as_deleted(field: str) -> None:
    found = window(Counts(**{field: 501}), peak=1000)
    assert found.alarm(1000) == Alarm("deleted", 501, NOON_US - 1_000_000)
    assert window(Counts(**{field: 500}), peak=1000).alarm(1000) is None


def test_an_incident_begins_before_the_first_damage_and_not_with_ordinary_deletions() -> None:
    ordinary, calm = Counts(gone=2), Counts(rewritten=5)
    found = window(ordinary, calm, Counts(gone=300), Counts(gone=400), peak=1000)
    alarm = found.alarm(298)
    assert alarm is not None
    assert alarm.before_us == NOON_US + 2 * BUCKET_US - 1_000_000


def test_damage_of_one_minute_counts_from_its_first_commit() -> None:
    found = window(Counts(gone=300), Counts(gone=400), peak=1000, every_us=BUCKET_US // 100)
    assert len(found.buckets) == 1
    assert found.alarm(300) == Alarm("deleted", 700, NOON_US - 1_000_000)


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    counts = Counts(rewritten=60, scrambled=60)
    assert window(counts, counts, peak=500, every_us=BUCKETS_MAX * BUCKET_US).alarm(500) is None
    almost = window(counts, counts, peak=500, every_us=(BUCKETS_MAX - 1) * BUCKET_US)
    assert almost.alarm(500) is not None


def test_a_clock_that_is_put_back_adds_to_the_last_minute() -> None:
    found = window(Counts(gone=1), peak=10)
    found = found.add(Counts(gone=1), at_us=0, last_us=0, entries_before=9)
    assert [(one.minute, one.counts.gone) for one in found.buckets] == [(NOON_US // BUCKET_US, 2)]


def consistent(counts: Counts) -> Counts:
    """Return counts of which each is at most what it is a part of."""
    return counts._replace(
        rewritten=counts.rewritten + counts.scrambled + counts.emptied,
        born_random=counts.born_random + counts.swapped,
        gone_plain=counts.gone_plain + counts.swapped,
        gone=counts.gone + counts.gone_plain + counts.swapped,
    )


COUNTS = st.builds(Counts, *[st.integers(0, 300)] * len(Counts())).map(consistent)
COMMITS = st.lists(st.tuples(COUNTS, st.integers(0, 5 * BUCKET_US)), max_size=200)


@given(COMMITS, st.integers(0, 2000), st.integers(0, 2000))
def test_a_window_is_bounded_ordered_and_its_alarms_are_massive(
    commits: Iterable[tuple[Counts, int]], before: int, now: int
) -> None:
    found, at_us = Window(), NOON_US
    for counts, later_us in commits:
        at_us += later_us
        found = found.add(counts, at_us=at_us, last_us=at_us - 1, entries_before=before)
    minutes = [one.minute for one in found.buckets]
    assert minutes == sorted(set(minutes))
    assert len(minutes) <= BUCKETS_MAX
    alarm = found.alarm(now)
    if alarm is not None:
        assert alarm.file_count >= FILES_MIN
        assert NOON_US - 1 <= alarm.before_us < at_us


@given(COUNTS, st.integers(0, 2000), st.integers(0, 2000))
def test_more_damage_never_calms(counts: Counts, before: int, now: int) -> None:
    worse = counts._replace(scrambled=counts.scrambled + 1, rewritten=counts.rewritten + 1)
    if window(counts, peak=before).alarm(now) is not None:
        assert window(worse, peak=before).alarm(now) is not None


# -- what a commit did -----------------------------------------------------------------------------


def version(content: bytes = b"c", *, flags: int = 0, size: int = 9, kind: int = 1) -> bytes:
    runs = (ContentRun(content, size),) if size else ()
    return msgspec.msgpack.encode(
        FileVersion(
            type=kind,
            mode=0o644,
            uid=0,
            gid=0,
            user=b"",
            group=b"",
            mtime_ns=0,
            ctime_ns=0,
            btime_ns=0,
            size=size,
            nlink=1,
            rdev=0,
            target=b"",
            xattrs=(),
            profile=0,
            levels=0,
            content=runs,
            fhash=b"",
            flags=flags,
        )
    )


RANDOM = version(b"r", flags=VersionFlag.RANDOM)
DIRECTORY = version(size=0, kind=EntryType.DIRECTORY)


def changed(old: bytes, new: bytes) -> Counts:
    toll = Toll()
    toll.changed(old, new)
    return toll.counts()


def test_a_version_says_whether_it_looks_random() -> None:
    assert is_random(RANDOM)
    assert is_random(version(flags=VersionFlag.RANDOM | VersionFlag.SPARSE))
    assert not is_random(version())
    assert not is_random(version(flags=VersionFlag.BLANK))


def test_a_file_is_scrambled_when_it_did_not_look_random_before() -> None:
    assert changed(version(), RANDOM) == Counts(rewritten=1, scrambled=1)
    assert changed(RANDOM, version(b"q", flags=VersionFlag.RANDOM)) == Counts(rewritten=1)
    assert changed(RANDOM, version()) == Counts(rewritten=1)


def test_a_file_is_emptied_when_something_was_in_it_before() -> None:
    blank = version(b"b", flags=VersionFlag.BLANK)
    assert changed(version(), version(size=0)) == Counts(rewritten=1, emptied=1)
    assert changed(version(), blank) == Counts(rewritten=1, emptied=1)
    assert changed(blank, version(b"q", flags=VersionFlag.BLANK)) == Counts(rewritten=1)
    assert changed(version(size=0), version()) == Counts(rewritten=1)


def test_a_change_of_mode_is_none_of_content_even_when_the_texture_was_not_known() -> None:
    assert changed(version(b"r"), RANDOM) == Counts()
    assert changed(DIRECTORY, version()) == changed(version(), DIRECTORY) == Counts()


def test_random_files_take_the_place_of_data_in_the_same_directory() -> None:
    toll = Toll()
    for _ in range(3):
        toll.born(7, RANDOM)
    toll.born(7, version())
    toll.gone(7, version())
    toll.gone(7, version())
    toll.gone(7, RANDOM)
    toll.gone(8, version())
    toll.gone(8, DIRECTORY)
    assert toll.counts() == Counts(swapped=2, born_random=3, gone_plain=3, gone=5)


def test_a_rename_counts_when_the_ending_is_another_one() -> None:
    toll = Toll()
    for fid, (old, new) in enumerate(
        [
            (b"a.txt", b"b.TXT"),
            (b"report.docx", b"report.docx.locked"),
            (b"app.log", b"app.log.1"),
            (b"app.log.1", b"app.log.2"),
            (b"app.log", b"app.log-20261126"),
            (b"notes", b"notes.wncry"),
        ]
    ):
        toll.left(fid, old)
        toll.left(fid, b"a name on the way")
        toll.named(fid, new)
    toll.named(99, b"new.here")
    toll.left(5, b"gone")
    assert toll.counts() == Counts(renamed=2)


@pytest.mark.parametrize(
    ("name", "end"),
    [(b".bashrc", b""), (b"a", b""), (b"a.", b""), (b"a.b.C", b"c"), (b"x.mp3", b"mp"), (b"", b"")],
)
def test_an_ending_is_behind_the_last_dot(name: bytes, end: bytes) -> None:
    assert ending(name) == end


def test_the_label_is_what_restore_is_asked_for() -> None:
    assert suspicion.LABEL == "before-incident"
