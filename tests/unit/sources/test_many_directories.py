"""What is read of many directories in one compiled call is what the Python code reads of each."""

import itertools
import os
import random
import tempfile
import threading
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from unittest import mock

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.effects import SystemClock
from streamd.sources.filesystem import bulk, reading
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.postgres import RUNNING
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.source import FilesystemSource
from streamd.sources.port import Outcome, ReadRequest

NOISE = random.Random(9).randbytes(80_000)


class LaterClock(SystemClock):
    def now_us(self) -> int:
        return super().now_us() + 3600 * 1_000_000


class Halves:
    """Cuts what is long in two."""

    def cut(self, buffer, *, final):
        half = len(buffer) // 2
        return [half, len(buffer) - half]


def source_of(root: Path, clock=None) -> FilesystemSource:
    return FilesystemSource(
        "test", (os.fsencode(root),), rules=ExcludeRules(()), cutter=Halves(),
        hasher=lambda view: blake3(view).digest(), clock=clock or LaterClock(),
    )  # fmt: skip


def requests_of(source: FilesystemSource, root: bytes, *, generations: bool) -> list[ReadRequest]:
    """Ask for all that is there, directory by directory, as a survey does."""
    found, waiting = [], [root]
    while waiting:
        directory = waiting.pop(0)
        entries = source.examine(directory, None).entries
        seen = source.identify(directory, list(entries), births=True) if generations else {}
        for name, stat in entries.items():
            path = os.path.join(directory, name)
            generation = seen[name].generation if name in seen else 0
            found.append(ReadRequest(path, stat, generation=generation))
            if stat.type == reading._DIRECTORY:
                waiting.append(path)
    return found


def told(source: FilesystemSource, requests: list[ReadRequest]):
    """Return all that is said of each, its content included."""
    batch = source.read(requests)
    assert len(batch.results) == len(requests)
    rows = []
    for each in batch.results:
        content = b"".join(
            bytes(batch.arena[p.offset : p.offset + p.size]) if p.id else bytes(p.size)
            for p in each.pieces
        )
        rows.append(
            (
                each.outcome, each.stat, each.xattrs, each.target, each.btime_ns, each.errno,
                each.notice, each.content_size if each.content_size >= 0 else each.stat.size,
                [(p.id, p.size) for p in each.pieces], content,
            )
        )  # fmt: skip
    return rows


def singly():
    stack = ExitStack()
    stack.enter_context(mock.patch.object(bulk, "read_batch", None))
    return stack


KINDS = [
    "empty", "short", "long", "sparse", "attribute", "unreadable", "pipe", "link", "lost link",
    "link that is none of ours", "folder", "closed folder", "folder with attribute", "postgres",
    "second name",
]  # fmt: skip
CHANGES = [
    "grow", "cut", "replace", "remove", "touch", "mode", "to link", "to folder", "attribute",
    "move above",
]  # fmt: skip


def make(path: Path, kind: str) -> None:
    if kind in {"folder", "closed folder", "folder with attribute", "postgres"}:
        path.mkdir(mode=0 if kind == "closed folder" else 0o755)
        (path / "inside").write_bytes(b"inside")
        if kind == "folder with attribute":
            os.setxattr(path, b"user.note", b"value")
        if kind == "postgres":
            (path / "global").mkdir()
            for name in ("PG_VERSION", "global/pg_control", "postmaster.pid"):
                (path / name).touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif "link" in kind:
        path.symlink_to({"link": ".", "lost link": "nothing/\xe9"}.get(kind, "/etc/passwd"))
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(300_000)
            file.seek(200_000)
            file.write(b"in the middle")
    elif kind == "second name":
        path.write_bytes(b"one")
        os.link(path, f"{path}-2")
    else:
        path.write_bytes(NOISE[: {"empty": 0, "long": 70_001}.get(kind, 4_097)])
        if kind == "attribute":
            os.setxattr(path, b"user.note", b"value")
        if kind == "unreadable":
            path.chmod(0)


AWAY = itertools.count()


def change(path: Path, how: str) -> None:
    away = next(AWAY)
    if how == "move above":
        path.parent.rename(f"{path.parent}-{away}")
        path.parent.mkdir()
    elif how == "mode":
        path.chmod(0o711) if not path.is_symlink() else None
    elif how == "touch":
        os.utime(path, ns=(1, 1), follow_symlinks=False)
    elif how == "attribute" and path.is_file():
        os.setxattr(path, b"user.late", b"x")
    elif path.is_dir() and not path.is_symlink():
        path.rename(f"{path}-{away}")
        if how == "to link":
            path.symlink_to(f"{path.name}-{away}")
        elif how == "replace":
            path.mkdir()
    elif how == "grow" and path.is_file() and not path.is_symlink():
        with path.open("ab") as file:
            file.write(b"more")
    elif how == "cut" and path.is_file() and not path.is_symlink():
        os.truncate(path, 1)
    else:
        data = path.read_bytes() if path.is_file() else b""
        path.unlink()
        if how == "replace":
            path.write_bytes(data)
        elif how == "to link":
            path.symlink_to("elsewhere")
        elif how == "to folder":
            path.mkdir()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(KINDS), max_size=5), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(CHANGES)), max_size=4),
    st.booleans(),
)
def test_odd_trees_are_read_the_same(tree, changes, generations):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve() / "root"
        root.mkdir()
        for number, kinds in enumerate(tree):
            (root / f"d{number}").mkdir()
            for at, kind in enumerate(kinds):
                make(root / f"d{number}" / f"{at}-{kind}", kind)
        source = source_of(root)
        requests = requests_of(source, os.fsencode(root), generations=generations)
        for place_at, how in changes:
            path = Path(os.fsdecode(requests[place_at % len(requests)].path))
            if os.path.lexists(path) and path.parent != root:
                change(path, how)
        quick = told(source, requests)
        with singly():
            slow = told(source, requests)
        for request, one, other in zip(requests, quick, slow, strict=True):
            assert one == other, request


@pytest.fixture
def wide(tmp_path):
    """A tree of which everything is ordinary."""
    root = tmp_path.resolve() / "root"
    for directory in ("a", "b/c/d", "b/e"):
        (root / directory).mkdir(parents=True)
        (root / directory / "short").write_bytes(directory.encode())
        (root / directory / "long").write_bytes(NOISE[len(directory) :])
        (root / directory / "link").symlink_to("short")
    return root


def test_what_is_ordinary_is_read_in_one_call(wide, monkeypatch):
    source = source_of(wide)
    requests = requests_of(source, os.fsencode(wide), generations=True)
    assert all(request.generation for request in requests)
    with singly():
        slow = told(source, requests)
    monkeypatch.setattr(reading.BatchReader, "_read_rest", None)
    assert told(source, requests) == slow
    assert {row[0] for row in slow} == {Outcome.OK}
    assert {row[3] for row in slow} == {b"", b"short"}


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_another_use_of_an_inode_number_is_another_file(wide, kind):
    make(wide / "it", kind)
    source = source_of(wide)
    requests = [
        each._replace(generation=each.generation + 1)
        for each in requests_of(source, os.fsencode(wide), generations=True)
        if each.path.endswith(b"/it")
    ]
    assert requests[0].generation > 1
    assert [row[0] for row in told(source, requests)] == [Outcome.TYPE_CHANGED]


def test_a_running_database_is_told_of(wide):
    make(wide / "it", "postgres")
    source = source_of(wide)
    requests = requests_of(source, os.fsencode(wide), generations=True)
    notices = {
        os.path.basename(r.path): row[6]
        for r, row in zip(requests, told(source, requests), strict=True)
    }
    assert notices[b"it"] == RUNNING
    assert notices[b"global"] == ""


def test_a_root_behind_a_link_is_read_the_same(wide, tmp_path):
    (tmp_path / "way").symlink_to(wide.parent)
    root = tmp_path / "way" / "root"
    source = source_of(root)
    requests = requests_of(source, os.fsencode(root), generations=True)
    quick = told(source, requests)
    with singly():
        assert told(source, requests) == quick
    assert {row[0] for row in quick} == {Outcome.OK}


def test_no_compiled_call_enters_where_somebody_could_wait_for_ever(wide, monkeypatch):
    """A mount that may hang, at b/c: what is there and what leads to it gets a turn."""
    slow_mount = os.fsencode(wide / "b" / "c")
    monkeypatch.setattr(
        Answering, "may_hang_at", lambda _, paths: any(p.startswith(slow_mount) for p in paths)
    )
    turns, inside, seen = [], [], []

    class Turn:
        def __init__(self, path: bytes) -> None:
            self.path = path

        def __enter__(self) -> None:
            turns.append(self.path)
            inside.append(self.path)

        def __exit__(self, *_) -> None:
            inside.pop()

    def read_batch(flags, groups, *rest):
        for directory, fd, requests in groups:
            touched = [
                directory,
                *[r.path for r in requests if r.expected.type == reading._DIRECTORY],
            ]
            hanging = [path for path in touched if path.startswith(slow_mount)]
            assert not hanging or (fd >= 0 and inside and hanging == [directory])
            seen.extend(request.path for request in requests)
        return compiled(flags, groups, *rest)

    compiled = bulk.read_batch
    source = source_of(wide)
    requests = requests_of(source, os.fsencode(wide), generations=True)
    with singly():
        expected = told(source, requests)
    monkeypatch.setattr(Answering, "turn", lambda _, path: Turn(path))
    monkeypatch.setattr(bulk, "read_batch", read_batch)
    assert told(source, requests) == expected
    assert slow_mount in turns  # where it is described, and where it is entered
    assert slow_mount + b"/d" in turns
    assert slow_mount + b"/d/long" in seen
    assert not any(path.startswith(os.fsencode(wide / "a")) for path in turns)


def test_what_is_replaced_while_it_is_read_is_one_state_or_is_not_ok(wide):
    """Files are rewritten, replaced and grow, directories move away and come back."""
    names = [wide / f"x{number}" for number in range(6)]
    stop, root, done = threading.Event(), os.fsencode(wide), 0
    for name in names:
        name.mkdir()
        (name / "file").write_bytes(b"a" * 30_000)

    def disturb() -> None:
        dice = random.Random(4)
        while not stop.is_set():
            name, letter = dice.choice(names), dice.choice(b"abcdef")
            data = bytes([letter]) * dice.randrange(1, 30_000)
            match dice.randrange(3):
                case 0:
                    (name / "file").write_bytes(data)
                case 1:
                    (name / "new").write_bytes(data)
                    (name / "new").rename(name / "file")
                case _:
                    name.rename(wide / "away")
                    (wide / "away").rename(name)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        source = source_of(wide, SystemClock())
        for _ in range(150):
            requests = requests_of(source, root, generations=True)
            requests = [each for each in requests if b"/x" in each.path]
            for _, group in groupby(told(source, requests), key=lambda row: row[0]):
                for row in group:
                    if row[0] is Outcome.OK and row[1].type == reading._REGULAR:
                        assert len(row[9]) == row[1].size
                        assert len(set(row[9])) <= 1
                        done += 1
    finally:
        stop.set()
        thread.join()
    assert done


@pytest.mark.parametrize("kind", ["folder", "link"])
@pytest.mark.parametrize("is_moved", [False, True])
def test_what_moved_away_with_its_directory_is_left_to_the_python_code(wide, kind, is_moved):
    make(wide / "b" / "it", kind)
    source = source_of(wide)
    (request,) = [
        each
        for each in requests_of(source, os.fsencode(wide), generations=True)
        if each.path.endswith(b"/it")
    ]
    fd = os.open(wide / "b", os.O_PATH)
    try:
        if is_moved:
            (wide / "b").rename(wide / "moved")
            (wide / "b").mkdir()
            make(wide / "b" / "it", kind)
        group = (os.fsencode(wide / "b"), fd, [request])
        ((got,),) = bulk.read_batch(os.O_RDONLY, [group], memoryview(bytearray(1)), 0, 0, False, ())
    finally:
        os.close(fd)
    assert (got is None) == is_moved
