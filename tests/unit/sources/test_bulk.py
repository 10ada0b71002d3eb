"""The compiled module says exactly what the Python code beside it says."""

import mmap
import os
import random
import socket
from pathlib import Path

import pytest
from blake3 import blake3

from streamd.effects import SystemClock
from streamd.format.chunker import Cutter
from streamd.model.host import HostStat
from streamd.sources.filesystem import bulk
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.source import FilesystemSource
from streamd.sources.port import Outcome, Piece, ReadRequest

LATER_US = 3600 * 1_000_000  # files are old then: the compiled module reads them


class LaterClock(SystemClock):
    def now_us(self) -> int:
        return super().now_us() + LATER_US


@pytest.fixture
def many(tree):
    root = tree.root
    for number in range(40):
        (root / f"file-{number}").write_bytes(os.urandom(number * 997))
    (root / "empty").touch()
    (root / "exactly-a-block").write_bytes(b"x" * 4096)
    (root / "large\nname \xff".encode("latin-1").decode("utf-8", "surrogateescape")).write_bytes(
        b"odd"
    )
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"in the middle")
    (root / "with-attribute").write_bytes(b"content")
    os.setxattr(root / "with-attribute", b"user.note", b"value")
    (root / "folder").mkdir(mode=0o750)
    (root / "folder" / "inside").write_bytes(b"inside")
    (root / "link").symlink_to("folder")
    os.link(root / "file-3", root / "second-name")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(str(root / "socket"))
    (root / "set-id").write_bytes(b"")
    (root / "set-id").chmod(0o6755)
    os.utime(root / "file-1", ns=(-5_000_000_001, -5_000_000_001))
    return tree


def source_of(tree) -> FilesystemSource:
    return FilesystemSource(
        "test", (tree.path,), rules=ExcludeRules(("file-7",)), cutter=None,
        hasher=lambda view: blake3(view).digest(), clock=LaterClock(), small_file_max=1 << 30,
    )  # fmt: skip


@pytest.fixture
def singly(monkeypatch):
    def use() -> None:
        monkeypatch.setattr(bulk, "read_batch", None)
        monkeypatch.setattr(bulk, "stat_entries", None)
        monkeypatch.setattr(bulk, "stat_unlike", None)

    return use


def read_files(fd, names, expected, arena, start, quiet_ns, directory=b""):
    """Read from an open directory, and from one that is opened by its path."""
    requests = [
        ReadRequest((directory or b"/x") + b"/" + name, each)
        for name, each in zip(names, expected, strict=True)
    ]
    group, probe = (directory or b"/x", fd, requests), bool(directory)
    (got,) = bulk.read_batch(os.O_RDONLY, [group], arena, start, quiet_ns, probe, ())
    return got


def test_the_module_is_built_where_there_is_a_compiler():
    assert bulk.read_batch is not None
    assert bulk.stat_entries is not None


def test_a_directory_looks_the_same(many, singly):
    source = source_of(many)
    names = [b"file-2", b"file-7", b"folder", b"nothing", b"pipe", b"x" * 300]
    found = source.examine(many.path, None), source.examine(many.path, names)
    singly()
    assert (source.examine(many.path, None), source.examine(many.path, names)) == found
    assert list(found[0].entries)
    assert b"file-7" not in found[0].entries


def test_files_read_the_same(many, singly):
    source = source_of(many)
    entries = source.examine(many.path, None).entries
    requests = [ReadRequest(os.path.join(many.path, name), each) for name, each in entries.items()]
    quick = source.read(requests)
    singly()
    slow = source.read(requests)
    for request, one, other in zip(requests, quick.results, slow.results, strict=True):
        assert (one.outcome, one.stat) == (other.outcome, other.stat), request
        assert (one.xattrs, one.target, one.btime_ns) == (
            other.xattrs,
            other.target,
            other.btime_ns,
        )
        assert [(p.id, p.size) for p in one.pieces] == [(p.id, p.size) for p in other.pieces]
    assert quick.read_bytes == slow.read_bytes


def test_ordinary_files_are_read_by_the_module(many):
    source = source_of(many)
    entries = source.examine(many.path, None).entries
    fd = os.open(many.root, os.O_RDONLY)
    arena = memoryview(bytearray(1 << 20))
    try:
        names = [b"file-9", b"with-attribute", b"sparse", b"gone", b"file-2"]
        expected = [entries.get(name, entries[b"file-1"]) for name in names]
        quiet_ns = LaterClock().now_us() * 1000
        got = read_files(fd, names, expected, arena, 10, quiet_ns)
    finally:
        os.close(fd)
    assert [read is not None for read in got] == [True, False, False, False, True]
    assert arena[10 : 10 + 9 * 997] == (many.root / "file-9").read_bytes()
    assert got[4][1] == 10 + 9 * 997


@pytest.mark.parametrize("what", ["grown", "replaced", "touched", "young", "no room"])
def test_what_is_not_as_expected_is_left_alone(many, what):
    file = many.root / "file-5"
    expected = many.request("file-5").expected
    size, quiet_ns = 1 << 20, LaterClock().now_us() * 1000
    if what == "grown":
        with file.open("ab") as handle:
            handle.write(b"more")
    elif what == "replaced":
        (many.root / "new").write_bytes(file.read_bytes())
        (many.root / "new").replace(file)
    elif what == "touched":
        file.chmod(0o600)
    elif what == "young":
        quiet_ns = expected.ctime_ns - 1
    else:
        size = expected.size - 1
    fd = os.open(many.root, os.O_RDONLY)
    try:
        arena = memoryview(bytearray(size))
        assert read_files(fd, [b"file-5"], [expected], arena, 0, quiet_ns) == [None]
    finally:
        os.close(fd)


@pytest.mark.parametrize("what", ["at rest", "being written", "mapped", "moved", "too deep"])
def test_a_file_that_was_just_changed_is_read_if_nobody_writes_to_it(many, what):
    file, directory, mapping = many.root / "file-5", many.path, None
    expected, content = many.request("file-5").expected, (many.root / "file-5").read_bytes()
    if what == "moved":
        many.root.rename(f"{many.root}-moved")
        many.root.mkdir()
        (many.root / "file-5").write_bytes(content)
    elif what == "too deep":
        directory = b"/" + b"d" * 4090
    fd = os.open(f"{many.root}-moved" if what == "moved" else many.root, os.O_RDONLY)
    writer = file.open("r+b") if what in {"being written", "mapped"} else None
    if writer is not None and what == "mapped":
        mapping = mmap.mmap(writer.fileno(), 0)
        writer.close()
    try:
        arena, quiet_ns = memoryview(bytearray(1 << 20)), expected.ctime_ns - 1
        (got,) = read_files(fd, [b"file-5"], [expected], arena, 0, quiet_ns, directory)
    finally:
        os.close(fd)
        if writer is not None:
            writer.close()
        if mapping is not None:
            mapping.close()
    assert (got is not None) == (what == "at rest")
    if got is not None:
        assert arena[: expected.size] == content


def test_young_files_read_the_same(many, singly):
    """All of them: as they lie there, changed some milliseconds ago, one of them still open."""
    source = FilesystemSource(
        "test", (many.path,), rules=ExcludeRules(()), cutter=None,
        hasher=lambda view: blake3(view).digest(), clock=SystemClock(), small_file_max=1 << 30,
    )  # fmt: skip
    entries = source.examine(many.path, None).entries
    requests = [ReadRequest(os.path.join(many.path, name), each) for name, each in entries.items()]
    with (many.root / "file-9").open("r+b"):
        quick = source.read(requests)
        singly()
        slow = source.read(requests)
    for request, one, other in zip(requests, quick.results, slow.results, strict=True):
        assert (one.outcome, one.stat, one.xattrs, one.target, one.btime_ns) == (
            (other.outcome, other.stat, other.xattrs, other.target, other.btime_ns)
        ), request
        assert [(p.id, p.size) for p in one.pieces] == [(p.id, p.size) for p in other.pieces]
    outcomes = {
        request.path: one.outcome for request, one in zip(requests, quick.results, strict=True)
    }
    assert outcomes[many.path + b"/file-9"] is Outcome.FUZZY
    assert outcomes[many.path + b"/file-8"] is Outcome.OK


def test_wrong_arguments_are_refused(many, tmp_path: Path):
    expected = many.request("file-5").expected
    request, arena = ReadRequest(b"/a", expected), memoryview(bytearray(1))
    for group, error in (
        ((b"/", 0, [request._replace(path=b"/a\0b")]), ValueError),
        ((b"/\0", 0, [request]), ValueError),
        ((b"/", 0, [request._replace(expected=(1, 2))]), TypeError),
        ((b"/", 0, [request._replace(generation=-1)]), OverflowError),
        ((b"/", 0, [request._replace(generation=None)]), TypeError),
        ((b"/", 0, [request[:4]]), TypeError),
        ((b"/", 0, (request,)), TypeError),
        (("/", 0, [request]), TypeError),
        ((b"/", None, [request]), TypeError),
        ((b"/", 0), TypeError),
        ([b"/", 0, [request]], TypeError),
    ):
        with pytest.raises(error):
            bulk.read_batch(0, [group], arena, 0, 0, False, ())
    for start in (-1, 2):
        with pytest.raises(ValueError, match="start"):
            bulk.read_batch(0, [], arena, start, 0, False, ())
    with pytest.raises(TypeError):
        bulk.read_batch(0, [(b"/", 0, [request])], arena, 0, 0, False, ("x",))
    assert bulk.read_batch(0, [], arena, 1, 0, False, ()) == []
    with pytest.raises(OSError):
        bulk.stat_entries(-1, None, type(expected))


def test_a_vanished_file_has_its_outcome(many):
    source = source_of(many)
    entries = source.examine(many.path, None).entries
    requests = [
        ReadRequest(os.path.join(many.path, name), entries[name]) for name in (b"file-5", b"file-6")
    ]
    (many.root / "file-5").unlink()
    batch = source.read(requests)
    assert [result.outcome for result in batch.results] == [Outcome.VANISHED, Outcome.OK]
    assert bytes(batch.arena) == (many.root / "file-6").read_bytes()


def test_files_are_written_whole_with_what_describes_them(tmp_path):
    (tmp_path / "taken").write_bytes(b"somebody else's")
    fd = os.open(tmp_path, os.O_RDONLY)
    data = memoryview(b"content")
    try:
        done = bulk.write_files(
            fd,
            [
                (
                    b".one",
                    b"one",
                    data,
                    os.getuid(),
                    os.getgid(),
                    0o4750,
                    1_700_000_000_000_000_001,
                ),
                (b".two", b"taken", data, -1, 0, 0o600, 0),
                (b".three", b"gone/three", data, -1, 0, 0o600, 0),
                (b".four", b"four", data[:0], -1, 0, 0o640, -1),
            ],
        )
    finally:
        os.close(fd)
    assert done == [True, False, False, True]
    assert sorted(os.listdir(tmp_path)) == ["four", "one", "taken"]
    status = (tmp_path / "one").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o4750, 1_700_000_000_000_000_001)
    assert (tmp_path / "one").read_bytes() == b"content"
    assert (tmp_path / "taken").read_bytes() == b"somebody else's"
    assert (tmp_path / "four").stat().st_mtime_ns == -1


def test_what_cannot_be_written_leaves_the_temporary_name_of_others_alone(tmp_path):
    (tmp_path / ".one").write_bytes(b"unfinished")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        file = (b".one", b"one", memoryview(b"x"), -1, 0, 0o600, 0)
        assert bulk.write_files(fd, [file]) == [False]
        with pytest.raises(ValueError):
            bulk.write_files(fd, [file, (b"a\0", *file[1:])])
        with pytest.raises(TypeError):
            bulk.write_files(fd, [file, (b"a", "text", *file[2:])])
        with pytest.raises(OverflowError):
            bulk.write_files(fd, [(*file[:6], 1 << 70)])
    finally:
        os.close(fd)
    assert (tmp_path / ".one").read_bytes() == b"unfinished"


def known_of(tree, listing) -> list[tuple[object, ...]]:
    """Return what a catalog that has all of a listing says of it."""
    del tree
    return [(name, 7, 0, *stat) for name, stat in sorted(listing.entries.items())]


def test_what_is_as_it_was_is_left_out_and_nothing_else(many):
    source = source_of(many)
    whole = source.examine(many.path, None)
    rows = known_of(many, whole)
    listing = source.examine_known(many.path, lambda: rows)
    assert set(listing.entries) == set(listing.rest) == {b"folder"}
    assert listing.same_count == len(whole.entries) - 1
    assert listing.left_out == whole.left_out == {b"file-7": "excluded"}

    (many.root / "file-2").write_bytes(b"changed")
    (many.root / "file-4").unlink()
    (many.root / "new").touch()
    (many.root / "file-5").chmod(0o640)
    again = (*rows[0][:2], 1, *rows[0][3:])
    listing = source.examine_known(many.path, lambda: [again, *rows[1:]])
    whole = source.examine(many.path, None)
    changed = {b"folder", b"file-2", b"file-5", rows[0][0]}
    assert set(listing.entries) == {*changed, b"new"}
    assert set(listing.rest) == {*changed, b"file-4"}
    assert listing.entries == {name: whole.entries[name] for name in listing.entries}
    assert listing.same_count + len(listing.entries) == len(whole.entries)


def test_what_was_captured_and_is_excluded_by_now_is_not_as_it_was(many):
    source = source_of(many)
    rows = known_of(many, source.examine(many.path, None))
    excluded = (b"file-7", 7, 0, *source_of_all(many).examine(many.path, None).entries[b"file-7"])
    rows = sorted([*rows, excluded])
    listing = source.examine_known(many.path, lambda: rows)
    assert set(listing.rest) == {b"folder", b"file-7"}
    assert set(listing.entries) == {b"folder"}
    assert listing.left_out == {b"file-7": "excluded"}


def source_of_all(tree) -> FilesystemSource:
    return FilesystemSource(
        "test", (tree.path,), rules=ExcludeRules(()), cutter=None,
        hasher=lambda view: blake3(view).digest(), clock=LaterClock(), small_file_max=1 << 30,
    )  # fmt: skip


def test_nothing_is_left_out_beside_the_log_of_a_database(many):
    (many.root / "some.db-wal").write_bytes(b"log")
    source = source_of(many)
    whole = source.examine(many.path, None)
    rows = known_of(many, whole)
    listing = source.examine_known(many.path, lambda: rows)
    assert listing.entries == whole.entries
    assert set(listing.rest) == {row[0] for row in rows}
    assert not listing.same_count


def test_another_device_number_alone_is_no_difference_and_any_other_field_is(many):
    source = source_of(many)
    rows = known_of(many, source.examine(many.path, None))
    place = next(at for at, row in enumerate(rows) if row[0] == b"file-3")
    for field, name in enumerate(HostStat._fields):
        row = list(rows[place])
        row[3 + field] += 1
        changed = [*rows[:place], tuple(row), *rows[place + 1 :]]
        listing = source.examine_known(many.path, lambda given=changed: given)
        assert (b"file-3" in listing.rest) == (name != "dev"), name


@pytest.mark.parametrize(
    "rows",
    [
        [(b"b", 1, 0, *range(11)), (b"a", 1, 0, *range(11))],
        [(b"a", 1, 0, *range(11)), (b"a", 1, 0, *range(11))],
        [(b"a", 1, 0)],
        [("a", 1, 0, *range(11))],
        [(b"a", 1, 0, *"abcdefghijk")],
        [[b"a", 1, 0, *range(11)]],
    ],
)
def test_rows_that_cannot_be_of_a_catalog_are_refused(many, rows):
    (many.root / "a").touch()
    with pytest.raises((TypeError, ValueError)):
        source_of(many).examine_known(many.path, lambda: rows)


def test_the_files_of_all_directories_of_a_batch_get_their_ids_in_one_call(tree):
    for directory in ("a", "b", "c"):
        (tree.root / directory).mkdir()
        for name in ("x", "y"):
            (tree.root / directory / name).write_bytes(f"{directory}{name}".encode())
    calls = []

    def ids(arena, starts, sizes):
        calls.append(len(starts))
        places = zip(starts, sizes, strict=True)
        return [blake3(arena[start : start + size]).digest() for start, size in places]

    source = FilesystemSource(
        "test", (tree.path,), rules=ExcludeRules(()), cutter=None,
        hasher=lambda view: blake3(view).digest(), part_hasher=ids, clock=LaterClock(),
    )  # fmt: skip
    requests = [
        ReadRequest(tree.path + b"/" + directory + b"/" + name, stat)
        for directory in (b"a", b"b", b"c")
        for name, stat in source.examine(tree.path + b"/" + directory, None).entries.items()
    ]
    batch = source.read(requests)
    assert calls == [6]
    for request, result in zip(requests, batch.results, strict=True):
        ((chunk_id, offset, size),) = result.pieces
        content = bytes(batch.arena[offset : offset + size])
        assert content == request.path[-3:].replace(b"/", b"")
        assert chunk_id == blake3(content).digest()


def test_a_directory_that_may_be_read_and_not_entered_is_described_the_same(many, monkeypatch):
    source = source_of(many)
    ((name, stat),) = [
        each for each in source.examine(many.path, None).entries.items() if each[0] == b"folder"
    ]
    (seen,) = source.identify(many.path, [name]).values()
    request = ReadRequest(many.path + b"/" + name, stat, generation=seen.generation)
    other = request._replace(generation=seen.generation + 1)
    (entered,) = source.read([request]).results
    monkeypatch.setattr("streamd.sources.filesystem.reading.identify", lambda *_, **__: {})
    (only_read,) = source.read([request]).results
    assert entered == only_read
    assert entered.outcome == Outcome.OK
    assert entered.btime_ns > 0
    for _ in range(2):
        assert source.read([other]).results[0].outcome == Outcome.TYPE_CHANGED
        monkeypatch.undo()


def test_long_files_are_cut_the_same_in_one_call(tree):
    noise = random.Random(3).randbytes(700_000)
    for directory, size in (("a", 200_000), ("b", 65_537), ("c", 700_000)):
        (tree.root / directory).mkdir()
        (tree.root / directory / "long").write_bytes(noise[:size])
        (tree.root / directory / "short").write_bytes(noise[: size // 20])
    cutter, key, calls = Cutter(77), bytes(range(32)), []

    def cut_parts(data, starts, sizes, *, final):
        calls.append(len(starts))
        return cutter.chunks(key, data, starts, sizes, final=final, piece=Piece)

    def read(part_cutter, *, large=False):
        source = FilesystemSource(
            "test", (tree.path,), rules=ExcludeRules(()), cutter=cutter,
            hasher=lambda view: blake3(view, key=key).digest(), part_cutter=part_cutter,
            clock=LaterClock(), batch_bytes_max=300_000 if large else 4 << 20,
        )  # fmt: skip
        requests = [
            ReadRequest(os.path.join(tree.path, directory, name), stat)
            for directory in (b"a", b"b", b"c")
            for name, stat in source.examine(
                os.path.join(tree.path, directory), None
            ).entries.items()
        ]
        if not large:
            return [[piece[::2] for piece in each.pieces] for each in source.read(requests).results]
        (request,) = [each for each in requests if each.path.endswith(b"/c/long")]
        file, found = source.open_large(request), []
        while (part := file.next()) is not None:
            found += [piece[::2] for piece in part[1]]
        assert file.finish().outcome is Outcome.OK
        return found

    singly = read(None)
    assert read(cut_parts) == singly
    assert calls == [3]
    assert read(cut_parts, large=True) == read(None, large=True)
    assert sum(size for _, size in read(cut_parts, large=True)) == 700_000
