"""The oracle accepts what really was, and catches everything planted that was not."""

import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from system.mutator import PROFILES, Mutator
from system.oracle import Oracle
from system.tree import difference, listing

SECOND = 1_000_000


def mutated(folder: Path, *, seed: int, operations: int, profile: str = "mixed") -> Oracle:
    before = os.umask(0)
    with (folder / "log").open("w") as log:
        mutator = Mutator(str(folder / "tree"), seed=seed, log=log, profile=profile, population=60)
        mutator.populate()
        for _ in range(operations):
            mutator.step()
    os.umask(before)
    return Oracle(folder / "log")


def faults(oracle: Oracle, tree: Path, *, at_us: int | None = None, rpo_us: int = 0) -> set[str]:
    at_us = oracle.last_us + SECOND if at_us is None else at_us
    return {violation.fault for violation in oracle.judge(tree, at_us=at_us, rpo_us=rpo_us)}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_tree_that_is_there_passes(tmp_path, profile) -> None:
    oracle = mutated(tmp_path, seed=1, operations=400, profile=profile)
    assert oracle.judge(tmp_path / "tree", at_us=oracle.last_us + 1, rpo_us=0) == []


def test_a_copy_made_earlier_passes_for_its_time_only(tmp_path) -> None:
    with (tmp_path / "log").open("w") as log:
        mutator = Mutator(str(tmp_path / "tree"), seed=5, log=log, population=40)
        mutator.populate()
        time.sleep(0.002)
        taken_us = time.time_ns() // 1000
        shutil.copytree(tmp_path / "tree", tmp_path / "copy", symlinks=True)
        time.sleep(0.002)
        for _ in range(300):
            mutator.step()
    oracle = Oracle(tmp_path / "log")
    # copytree keeps no owners and separates hard links: the population has neither yet
    assert oracle.judge(tmp_path / "copy", at_us=taken_us, rpo_us=0) == []
    assert {"missing", "extra", "stale"} <= faults(oracle, tmp_path / "copy")
    whole_run_us = oracle.last_us - taken_us
    assert faults(oracle, tmp_path / "copy", at_us=oracle.last_us, rpo_us=whole_run_us) == set()


def planted(tmp_path: Path, lines: list[list]) -> Oracle:
    """A log of operations one second long, one every ten seconds: [[path, states], …] each."""
    with (tmp_path / "log").open("w") as log:
        for index, effects in enumerate(lines):
            start = index * 10 * SECOND
            line = {"n": index, "op": "x", "start": start, "end": start + SECOND}
            log.write(json.dumps({**line, "effects": effects}) + "\n")
    return Oracle(tmp_path / "log")


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


def file_state(content: bytes, *, number: int = 1, mode: int = 0o644, mtime_ns: int = 1) -> list:
    from system.model import File

    node = File(mode)
    node.set(content)
    state = node.state()
    state[6], state[9] = mtime_ns, number
    state[2:4] = [os.getuid(), os.getgid()]
    return state


def write(path: Path, content: bytes, *, mode: int = 0o644, mtime_ns: int = 1) -> None:
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def test_missing_is_caught(tmp_path, tree) -> None:
    assert faults(planted(tmp_path, [[["a", [file_state(b"1")]]]]), tree) == {"missing"}


def test_extra_is_caught(tmp_path, tree) -> None:
    write(tree / "b", b"1")
    assert faults(planted(tmp_path, []), tree) == {"extra"}


def test_a_file_deleted_before_the_interval_is_extra(tmp_path, tree) -> None:
    write(tree / "a", b"1")
    oracle = planted(tmp_path, [[["a", [file_state(b"1")]]], [["a", [None]]]])
    assert faults(oracle, tree, at_us=20 * SECOND, rpo_us=2 * SECOND) == {"extra"}
    assert faults(oracle, tree, at_us=12 * SECOND, rpo_us=2 * SECOND) == set()


def test_stale_is_caught_outside_the_objective_only(tmp_path, tree) -> None:
    write(tree / "a", b"1")
    oracle = planted(tmp_path, [[["a", [file_state(b"1")]]], [["a", [file_state(b"22")]]]])
    assert faults(oracle, tree, at_us=14 * SECOND, rpo_us=2 * SECOND) == {"stale"}
    assert faults(oracle, tree, at_us=12 * SECOND, rpo_us=2 * SECOND) == set()


def test_the_future_is_caught(tmp_path, tree) -> None:
    write(tree / "a", b"22")
    oracle = planted(tmp_path, [[["a", [file_state(b"1")]]], [["a", [file_state(b"22")]]]])
    assert faults(oracle, tree, at_us=9 * SECOND, rpo_us=2 * SECOND) == {"stale"}


def test_mixed_content_is_caught(tmp_path, tree) -> None:
    write(tree / "a", b"12")
    oracle = planted(tmp_path, [[["a", [file_state(b"11")]]], [["a", [file_state(b"22")]]]])
    assert faults(oracle, tree, at_us=11 * SECOND, rpo_us=2 * SECOND) == {"mixed"}


def test_a_state_within_an_operation_is_possible_only_then(tmp_path, tree) -> None:
    write(tree / "a", b"")
    emptied = [file_state(b""), file_state(b"22")]
    oracle = planted(tmp_path, [[["a", [file_state(b"1")]]], [["a", emptied]]])
    assert faults(oracle, tree, at_us=11 * SECOND, rpo_us=0) == set()
    assert faults(oracle, tree, at_us=12 * SECOND, rpo_us=0) == {"stale"}


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("mode", lambda path: path.chmod(0o600)),
        ("mtime_ns", lambda path: os.utime(path, ns=(1, 2))),
        ("xattrs", lambda path: os.setxattr(path, "user.x", b"")),
    ],
)
def test_a_wrong_attribute_is_caught(tmp_path, tree, fault, change) -> None:
    write(tree / "a", b"1")
    oracle = planted(tmp_path, [[["a", [file_state(b"1")]]]])
    assert faults(oracle, tree) == set()
    change(tree / "a")
    assert faults(oracle, tree) == {fault}


@pytest.mark.root
def test_a_wrong_owner_is_caught(tmp_path, tree) -> None:
    write(tree / "a", b"1")
    os.chown(tree / "a", 7, 8)
    assert faults(planted(tmp_path, [[["a", [file_state(b"1")]]]]), tree) == {"uid, gid"}


def test_a_wrong_kind_is_caught(tmp_path, tree) -> None:
    (tree / "a").symlink_to("elsewhere")
    assert faults(planted(tmp_path, [[["a", [file_state(b"1")]]]]), tree) == {"kind"}


def test_a_wrong_target_is_caught(tmp_path, tree) -> None:
    (tree / "a").symlink_to("elsewhere")
    state = ["symlink", 0o777, os.getuid(), os.getgid(), 0, "", None, "here", "", 1]
    assert faults(planted(tmp_path, [[["a", [state]]]]), tree) == {"target"}


def test_a_lost_hard_link_is_caught(tmp_path, tree) -> None:
    write(tree / "a", b"1")
    write(tree / "b", b"1")
    both = [["a", [file_state(b"1")]], ["b", [file_state(b"1")]]]
    assert faults(planted(tmp_path, [both]), tree) == {"unlinked"}


def test_an_invented_hard_link_is_caught(tmp_path, tree) -> None:
    write(tree / "a", b"1")
    (tree / "b").hardlink_to(tree / "a")
    both = [["a", [file_state(b"1")]], ["b", [file_state(b"1", number=2)]]]
    assert faults(planted(tmp_path, [both]), tree) == {"linked"}


def test_the_same_seed_does_the_same_operations(tmp_path) -> None:
    trees = []
    for name in ("one", "two"):
        mutator = Mutator(str(tmp_path / name), seed=9, log=io.StringIO(), population=30)
        mutator.populate()
        for _ in range(200):
            mutator.step()
        trees.append(listing(str(tmp_path / name)))
    assert difference(*trees, ignore={"mtime_ns"}) == []


def test_a_difference_names_path_and_attribute(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "same", b"1")
        write(tmp_path / name / "other", name.encode())
        os.utime(tmp_path / name, ns=(1, 1))
    (tmp_path / "two" / "new").mkdir()
    os.utime(tmp_path / "two", ns=(1, 1))
    lines = difference(listing(str(tmp_path / "one")), listing(str(tmp_path / "two")))
    assert lines[0] == "extra directory: b'new'"
    assert lines[1].startswith("differs: b'other': content ")
    assert len(lines) == 2
