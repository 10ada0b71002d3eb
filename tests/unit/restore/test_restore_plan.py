"""A restore plan: what goes where, without touching a disk."""

import pytest
from vaultbuilder import VaultBuilder, version_of

from streamd.errors import NotFound
from streamd.model.entry import EntryType
from streamd.model.record import Record
from streamd.restore.plan import NAME_MAX, Planner, fault_of, other_name
from streamd.vault.tree_state import TreeState


def state_of(*paths: bytes, build) -> TreeState:
    builder = VaultBuilder()
    source = builder.source("web", *paths)
    build(source)
    state = TreeState(source.id)
    state.apply(Record(op, 0, 0, key, value) for _, _, op, key, value in builder.records)
    return state


def small(source) -> None:
    source.directory(b"/srv/www")
    source.directory(b"/srv/www/css")
    source.file(b"/srv/www/css/a", b"1", nlink=2)
    source.link(b"/srv/www/b", b"/srv/www/css/a")


def laid_out(planner: Planner) -> dict[bytes, bytes]:
    plan = planner.plan
    return {
        plan.target_path(file.directory, file.name): plan.source_path(file.directory, file.name)
        for file in plan.files
    }


def test_a_directory_becomes_the_target():
    planner = Planner()
    planner.add(state_of(b"/srv/www", build=small), [b"/srv/www/css"])
    assert laid_out(planner) == {b"a": b"/srv/www/css/a"}
    assert planner.plan.directories[0].version is not None


def test_a_whole_source_of_one_path_becomes_the_target():
    planner = Planner()
    planner.add(state_of(b"/srv/www", build=small), [b""])
    assert set(laid_out(planner)) == {b"b"}
    links = planner.plan.files[0].links
    assert [planner.plan.target_path(link.directory, link.name) for link in links] == [b"css/a"]


def test_a_file_lands_in_the_target_under_its_name():
    planner = Planner()
    planner.add(state_of(b"/srv/www", build=small), [b"/srv/www/css/a"])
    assert laid_out(planner) == {b"a": b"/srv/www/css/a"}
    assert planner.plan.directories[0].version is None


def test_several_things_keep_their_absolute_paths():
    planner = Planner()
    planner.add(state_of(b"/srv/www", build=small), [b"/srv/www/css", b"/srv/www/b"])
    assert set(laid_out(planner)) == {b"srv/www/css/a"}
    [link] = planner.plan.files[0].links  # the same file, though it was asked for by two paths
    assert planner.plan.target_path(link.directory, link.name) == b"srv/www/b"
    on_the_way = [each for each in planner.plan.directories if each.version is None]
    assert [each.source_path for each in on_the_way] == [b"", b"/srv", b"/srv/www"]


def test_parents_stand_before_children():
    def deep(source) -> None:
        small(source)
        for path in (b"/srv/www/x", b"/srv/www/x/y", b"/srv/www/css/z"):
            source.directory(path)

    planner = Planner()
    planner.add(state_of(b"/srv/www", build=deep), [b""])
    for number, each in enumerate(planner.plan.directories[1:], 1):
        assert each.parent < number


def test_what_was_not_there_is_not_found():
    with pytest.raises(NotFound):
        Planner().add(state_of(b"/srv/www", build=small), [b"/srv/www/nope"])


def test_device_nodes_need_to_be_asked_for():
    def device(source) -> None:
        source.directory(b"/srv/www")
        source.entry(b"/srv/www/null", version_of(EntryType.CHARACTER, rdev=259))

    state = state_of(b"/srv/www", build=device)
    careful, bold = Planner(), Planner(devices=True)
    careful.add(state, [b""])
    bold.add(state, [b""])
    assert [each.path for each in careful.plan.refused] == [b"/srv/www/null"]
    assert len(bold.plan.files) == 1


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"a\0", b"x" * 256])
def test_impossible_names_are_faults(name):
    assert fault_of(name)


@pytest.mark.parametrize("name", [b"...", b"-", b"\xff", b"x" * 255, b" ", b"a\n"])
def test_odd_names_are_none(name):
    assert not fault_of(name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (b"a.txt", b"a.restored-T.txt"),
        (b"Makefile", b"Makefile.restored-T"),
        (b".profile", b".profile.restored-T"),
    ],
)
def test_the_other_name_keeps_the_suffix(name, other):
    assert other_name(name, "T") == other


def test_the_other_name_fits():
    assert len(other_name(b"n" * 251 + b".txt", "20261120T140307Z")) == NAME_MAX


@pytest.mark.parametrize(
    "bad",
    [b".", b"..", b"a/b", b"a\0b", b"\0", b"x" * (NAME_MAX + 1), b".streamd-restore-1f"],
)
def test_one_bad_name_among_good_ones_is_refused_and_the_others_are_planned(bad):
    builder = VaultBuilder()
    source = builder.source("web", b"/srv/www")
    source.directory(b"/srv/www")
    for name in (b"a", b"z" * NAME_MAX, b"...", b"restore-1f"):
        source.file(b"/srv/www/" + name, b"1")
    source.file(b"/srv/www/stand-in", b"2")
    records = [
        Record(op, 0, 0, key.replace(b"stand-in", bad), value)
        for _, _, op, key, value in builder.records
    ]
    state = TreeState(source.id)
    state.apply(records)
    planner = Planner()
    planner.add(state, [b""])
    names = [file.name for file in planner.plan.files]
    assert sorted(names) == sorted([b"a", b"z" * NAME_MAX, b"...", b"restore-1f"])
    assert [each.reason for each in planner.plan.refused] == [fault_of(bad)]
