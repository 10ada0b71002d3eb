"""A tree in its private database: looked up, walked, and summed up."""

import pytest
from vaultbuilder import VaultBuilder, encode

from streamd.errors import VaultDamaged
from streamd.model.entry import Dirent, EntryType
from streamd.model.ids import ROOT_FID, SourceId
from streamd.model.record import Op, Record, dirent_key
from streamd.vault.tree_state import TreeState, join


def tree_of(*, paths=(b"/srv", b"/srv/www")):
    builder = VaultBuilder()
    source = builder.source("web", *paths)
    for path in paths:
        source.directory(path)
    source.directory(paths[0] + b"/a")
    source.file(paths[0] + b"/a/f\xff", b"1")
    source.file(paths[0] + b"/b", b"2")
    state = TreeState(source.id)
    state.apply(Record(op, 0, 0, key, value) for _, _, op, key, value in builder.records)
    return source, state


def test_the_sum_is_that_of_the_rows_whatever_the_order():
    source, state = tree_of()
    assert state.state == source.state_sum()
    other = TreeState(source.id)
    other.load(sorted(source.rows.items()))
    assert other.state == state.state
    assert list(other.rows()) == sorted(source.rows.items())


def test_deleting_takes_out_of_the_sum_what_setting_put_in():
    _source, state = tree_of()
    before = state.state
    key = dirent_key(ROOT_FID, b"/new")
    state.apply([Record(Op.SET, 0, 0, key, b"x"), Record(Op.SET, 0, 0, key, b"y")])
    assert state.state != before
    state.apply([Record(Op.DEL, 0, 0, key, b""), Record(Op.DEL, 0, 0, key, b"")])
    assert state.state == before


def test_paths_resolve_through_the_longest_root_that_has_them():
    _, state = tree_of()
    assert state.resolve(b"/srv/a/f\xff").version is not None
    assert state.resolve(b"/srv/www").dirent.type == EntryType.DIRECTORY
    assert state.resolve(b"/srv/a/").path == b"/srv/a"
    for missing in (b"/", b"/etc", b"/srv/b/c", b"/srvx", b"srv", b"/srv/a/none"):
        assert state.resolve(missing) is None


def test_the_root_directory_itself_can_be_a_source():
    builder = VaultBuilder()
    source = builder.source("all", b"/")
    source.fids[b""] = source.directory(b"/")
    source.file(b"/etc")
    state = TreeState(source.id)
    state.apply(Record(op, 0, 0, key, value) for _, _, op, key, value in builder.records)
    assert state.resolve(b"/etc").path == b"/etc"
    assert [entry.path for entry in state.walk()] == [b"", b"/", b"/etc"]


def test_a_walk_gives_directories_before_what_they_hold():
    _, state = tree_of()
    seen = set()
    for entry in state.walk():
        if entry.path not in (b"", b"/srv", b"/srv/www"):
            assert entry.path.rpartition(b"/")[0] in seen
        seen.add(entry.path)
    assert seen == {b"", b"/srv", b"/srv/www", b"/srv/a", b"/srv/a/f\xff", b"/srv/b"}


def test_a_cycle_in_a_hostile_tree_ends():
    source, state = tree_of()
    inner = source.fids[b"/srv/a"]
    value = encode(Dirent(source.fids[b"/srv"], EntryType.DIRECTORY))
    state.apply([Record(Op.SET, 0, 0, dirent_key(inner, b"loop"), value)])
    assert len(list(state.walk())) < 20


def test_a_repeated_key_in_a_checkpoint_is_damage():
    state = TreeState(SourceId(bytes(16)))
    with pytest.raises(VaultDamaged):
        state.load([(b"k", b"1"), (b"k", b"2")])


def test_impossible_file_numbers_are_damage():
    _, state = tree_of()
    for fid in (-1, 1 << 64):
        with pytest.raises(VaultDamaged):
            state.version(fid)


def test_the_largest_file_number_has_children_too():
    _, state = tree_of()
    top = (1 << 64) - 1
    state.apply([Record(Op.SET, 0, 0, dirent_key(top, b"x"), encode(Dirent(5, 1)))])
    assert [name for name, _ in state.children(top)] == [b"x"]


def test_names_below_the_virtual_root_are_whole_paths():
    assert join(b"", b"/srv") == b"/srv"
    assert join(b"/", b"etc") == b"/etc"
    assert join(b"/srv", b"a") == b"/srv/a"


@pytest.mark.parametrize("fid", [-1, 1 << 64])
def test_an_impossible_file_number_is_damage(fid: int) -> None:
    with TreeState(SourceId(bytes(16))) as state, pytest.raises(VaultDamaged):
        state.versions([1, fid])
