"""Mass damage is noticed, and marked, in the transaction that records it."""

from dataclasses import dataclass

import msgspec
import pytest
from unit.pipeline.journaling import Host
from vaultbuilder import version_of

from streamd.catalog.suspicion import incident_of
from streamd.catalog.tree import Intent
from streamd.model.entry import ContentRun, EntryType, VersionFlag
from streamd.model.record import RELEASED, SUSPECT, Incident, Mark, Op
from streamd.pipeline.findings import Ready

COUNT = 200
_ENCODE = msgspec.msgpack.encode


@dataclass
class Tree:
    """A source of `COUNT` files that was captured."""

    host: Host
    intents: list[Intent]
    at_us: int

    def scrambled(self, count: int) -> list[Intent]:
        """Return what a survey finds when files were encrypted in place."""
        return [one._replace(version=RANDOM, is_fresh=False) for one in self.intents[:count]]

    def marks(self, *readies: Ready) -> list[Incident]:
        """Commit; return the marks that the journal got."""
        result = self.host.commit(*readies)
        rows = [row for put in result.puts[-1:] for row in self.host.records(put)[1]]
        found = [msgspec.msgpack.decode(r.value, type=Incident) for r in rows if r.op == Op.MARK]
        return [one for one in found if one.kind]

    @property
    def incident(self) -> Incident | None:
        with self.host.catalog.reader() as connection:
            return incident_of(connection, "web")


def version(content: bytes, flags: int = 0) -> bytes:
    runs = (ContentRun(content * 32, 500),)
    return _ENCODE(version_of(EntryType.REGULAR, content=runs, size=500, flags=flags))


DATA, RANDOM = version(b"d"), version(b"r", VersionFlag.RANDOM)


@pytest.fixture
def tree(tmp_path):
    host = Host(tmp_path)
    intents = [one._replace(version=DATA) for one in host.intents(COUNT)]
    at_us = host.commit(Ready(intents=intents)).at_us
    host.builder.clock.us += 10_000_000
    yield Tree(host, intents, at_us)
    host.catalog.close()


def gone(intents: list[Intent]) -> Ready:
    return Ready(gone=[(one.parent, one.name) for one in intents])


def test_files_encrypted_in_place_mark_the_point_before(tree) -> None:
    assert not tree.marks(Ready(intents=tree.scrambled(99)))
    assert tree.incident is None
    (mark,) = tree.marks(Ready(intents=tree.scrambled(COUNT)))
    assert (mark.label, mark.kind, mark.point_us) == ("before-incident", SUSPECT, tree.at_us)
    assert (mark.reason, mark.file_count) == ("encrypted", COUNT)
    assert tree.incident == mark


def test_a_source_that_is_suspect_is_not_marked_again(tree) -> None:
    assert tree.marks(Ready(intents=tree.scrambled(COUNT)))
    assert not tree.marks(gone(tree.intents))


def test_encrypted_files_that_replace_the_originals_by_name_are_noticed(tree) -> None:
    fresh = [
        one._replace(fid=one.fid + 10_000, stat=one.stat._replace(ino=one.stat.ino + 10_000))
        for one in tree.intents
    ]
    (mark,) = tree.marks(Ready(intents=[one._replace(version=RANDOM) for one in fresh]))
    assert (mark.reason, mark.file_count) == ("encrypted", COUNT)


def test_a_checkout_that_replaces_every_file_is_no_damage(tree) -> None:
    fresh = [one._replace(fid=one.fid + 10_000, version=version(b"e")) for one in tree.intents]
    assert not tree.marks(Ready(intents=fresh))


def test_encrypted_copies_beside_removed_originals_are_noticed(tree) -> None:
    ready = gone(tree.intents)
    ready.intents = [
        one._replace(fid=one.fid + 10_000, name=one.name + b".locked", version=RANDOM)
        for one in tree.intents
    ]
    (mark,) = tree.marks(ready)
    assert (mark.reason, mark.file_count) == ("encrypted", COUNT)


def test_compressing_every_file_is_no_damage(tree) -> None:
    ready = gone(tree.intents)
    ready.intents = [
        one._replace(fid=one.fid + 10_000, name=one.name + b".gz", version=version(b"z"))
        for one in tree.intents
    ]
    assert not tree.marks(ready)


def test_more_than_half_of_the_files_gone_is_noticed_in_the_commit_that_passes_the_half(tree):
    assert not tree.marks(gone(tree.intents[: COUNT // 2]))
    (mark,) = tree.marks(gone(tree.intents[COUNT // 2 : COUNT // 2 + 1]))
    assert (mark.reason, mark.point_us) == ("deleted", tree.at_us)


def test_files_that_move_are_not_gone_and_a_new_ending_is_noticed(tree) -> None:
    moved = [one._replace(name=b"m" + one.name, is_fresh=False) for one in tree.intents]
    assert not tree.marks(Ready(intents=moved))
    locked = [one._replace(name=one.name + b".locked", is_fresh=False) for one in moved]
    (mark,) = tree.marks(Ready(intents=locked))
    assert (mark.reason, mark.file_count) == ("deleted", COUNT)


def test_half_an_hour_of_damage_survives_the_process(tree) -> None:
    assert not tree.marks(gone(tree.intents[: COUNT // 2]))
    tree.host.reopen()
    assert tree.marks(gone(tree.intents[COUNT // 2 :]))


def test_a_release_ends_it_and_begins_anew(tree) -> None:
    (mark,) = tree.marks(Ready(intents=tree.scrambled(COUNT)))
    release = msgspec.structs.replace(mark, kind=RELEASED, hold_until_us=7)
    assert tree.marks(Ready(marks=[release])) == [release]
    assert tree.incident is None
    assert not tree.marks(gone(tree.intents[:10]))  # the hour before is forgotten
    assert tree.marks(gone(tree.intents[10:]))


def test_an_ordinary_mark_says_nothing_of_suspicion(tree) -> None:
    assert not tree.marks(Ready(marks=[Mark("before-upgrade", "crash", 7)]))
    assert tree.incident is None


def test_a_transaction_that_fails_leaves_neither_mark_nor_memory(tree, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tree.host.journal, "_store_state", fail)
        with pytest.raises(KeyboardInterrupt):
            tree.host.commit(Ready(intents=tree.scrambled(COUNT)))
    assert tree.incident is None
    assert len(tree.marks(Ready(intents=tree.scrambled(COUNT)))) == 1
