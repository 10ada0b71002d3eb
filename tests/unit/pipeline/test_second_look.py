"""A second look at what changed between being seen and being read."""

from unit.pipeline.captured import REGULAR

from streamd.catalog.dirty import Depth
from streamd.pipeline import second_look


def test_a_file_with_the_inode_of_the_one_seen_is_another_one(one) -> None:
    one.fs.create(one.root, b"a", REGULAR, b"1")
    one.fs.create(one.root, b"b", REGULAR, b"1")
    (finding,) = one.look({b"/r": Depth.BELOW})
    entries = finding.found
    names = [entry.name for entry in entries]
    a, b = names.index(b"a"), names.index(b"b")
    entries = [entry._replace(parent=7, parent_ino=one.root.ino) for entry in entries]
    for name in (b"a", b"b"):
        ino = one.root.children[name].ino
        if name == b"a":
            one.fs.remove(one.root, name)
            one.fs.create(one.root, name, REGULAR, b"2")
        else:
            one.fs.write(one.root, name, b"2")
        assert one.root.children[name].ino == ino
    seen = second_look.look(one.source, entries, [a, b], lambda: 4711)
    assert (seen.again[a].fid, seen.again[a].is_fresh) == (4711, True)
    assert seen.again[a].generation == one.root.children[b"a"].generation
    assert seen.again[b].fid == entries[b].fid
    assert not seen.gone


def test_what_changes_even_while_it_is_looked_at_again_is_left(one) -> None:
    one.fs.create(one.root, b"a", REGULAR, b"1")
    (finding,) = one.look({b"/r": Depth.BELOW})
    entries = [entry._replace(parent=7, parent_ino=one.root.ino) for entry in finding.found]
    at = [entry.name for entry in entries].index(b"a")
    one.source.identify = lambda directory, names: {}
    seen = second_look.look(one.source, entries, [at], lambda: 4711)
    assert not seen.again
    assert not seen.gone
