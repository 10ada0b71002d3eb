"""T-F11 of docs/faults.md: a tree is encrypted or deleted under the daemon.

It becomes suspect, nothing of it is thinned until it is released, and the tree before comes back.
What people do to trees on ordinary days does none of that.
"""

import gzip
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon, now_us
from system.tree import difference, listing

FILES = 300
NOTICED_SECONDS = 100  # generous: two seconds on an idle machine
THIN = {"continuous": "1s", "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 1}
pytestmark = pytest.mark.timeout(300)


def text(number: int, words: int = 200) -> str:
    rng = random.Random(number)
    return f"precious {number}\n" + " ".join(str(rng.randrange(10**6)) for _ in range(words))


def plant(tree: Path) -> None:
    for number in range(FILES):
        (tree / str(number % 10)).mkdir(parents=True, exist_ok=True)
        (tree / str(number % 10) / f"{number}.txt").write_text(text(number))


def incident(daemon: Daemon) -> dict[str, object] | None:
    return daemon.facts("status", codes=(0, 3))["sources"][0]["incident"]


def is_suspect(daemon: Daemon) -> bool:
    return [value for _, value in daemon.metrics("streamd_source_suspect")] == [1.0]


def wait_suspect(daemon: Daemon, *, released: bool = False) -> None:
    until = time.monotonic() + NOTICED_SECONDS
    while is_suspect(daemon) is released:
        assert time.monotonic() < until, daemon.log_tail()
        time.sleep(0.1)


def test_t_f11_mass_encryption_is_noticed_freezes_thinning_and_takes_nothing_from_before(
    tmp_path,
) -> None:
    tree = tmp_path / "tree"
    plant(tree)
    before = listing(tree)
    with Daemon(tmp_path / "streamd", tree, policy=THIN) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        assert not is_suspect(daemon)
        good_us = now_us()
        for path in sorted(tree.rglob("*.txt")):
            path.write_bytes(os.urandom(path.stat().st_size))
            path.rename(path.with_suffix(".locked"))
        wait_suspect(daemon)
        daemon.kill()  # what was noticed is in the catalog and in the journal
        encrypted = listing(tree)
        daemon.start()
        daemon.wait_protected()
        wait_suspect(daemon)
        facts = incident(daemon)
        assert facts is not None
        assert facts["reason"] == "encrypted"
        assert 100 <= facts["files"] <= FILES
        assert facts["before_us"] <= good_us
        assert "source-suspect" in daemon.log.read_text()
        problems = daemon.facts("problems", codes=(3,))["problems"]
        assert [one["reason"] for one in problems] == ["suspect"]

        encrypted_us = now_us()
        shutil.rmtree(tree)  # on top of it, and the next day: capture goes on
        tree.mkdir()
        (tree / "README").write_text("pay")
        daemon.wait_protected()
        run = daemon.facts("retention", "run")["sources"][0]
        assert (run["suspect"], run["expired"]) == (True, 0)
        assert "source-suspect" in daemon_error(daemon, "retention", "run", "tree", code=8)
        (source,) = daemon.facts("points")["sources"]
        assert source["incident"]["before_us"] == facts["before_us"]
        named = [one for one in source["points"] if one["label"] == "before-incident"]
        assert [one["at_us"] for one in named] == [facts["before_us"]]

        daemon.restore(tmp_path / "good", at="before-incident")
        daemon.restore(tmp_path / "encrypted", at=encrypted_us)
        assert difference(before, listing(tmp_path / "good")) == []
        assert difference(encrypted, listing(tmp_path / "encrypted")) == []

        released = daemon.facts("retention", "release", "tree")
        assert (released["source"], released["reason"]) == ("tree", "encrypted")
        assert released["hold_until_us"] > now_us()
        wait_suspect(daemon, released=True)
        daemon.stop()


def daemon_error(daemon: Daemon, name: str, *arguments: str, code: int) -> str:
    """Return the slug with which a command ends."""
    return daemon.facts(name, *arguments, codes=(code,))["error"]["code"]


def test_t_f11_deletion_while_no_daemon_runs_is_noticed_and_released_without_one(tmp_path) -> None:
    tree = tmp_path / "tree"
    plant(tree)
    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        daemon.command("capture")
        for number in range(6):
            shutil.rmtree(tree / str(number))
        daemon.command("capture")
        (source,) = daemon.facts("points")["sources"]
        assert source["incident"]["reason"] == "deleted"
        assert source["incident"]["files"] == 6 * (FILES // 10 + 1)  # with the directories
        assert "released" in daemon.command("retention", "release", "tree", "--hold", "0s")
        assert daemon.facts("points")["sources"][0]["incident"] is None


def test_t_f11_what_people_do_on_ordinary_days_is_no_damage(tmp_path) -> None:
    tree = tmp_path / "tree"
    plant(tree)
    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        for number in range(FILES * 4 // 10):  # a checkout: other files under the same names
            path = tree / str(number % 10) / f"{number}.txt"
            path.unlink()
            path.write_text(text(number + FILES))
        logs = tree / "log"
        logs.mkdir()
        for number in range(150):
            (logs / f"{number}.log").write_text(text(number))
        daemon.wait_protected()
        for path in sorted(logs.glob("*.log")):  # rotated, and the last one compressed
            rotated = path.with_name(path.name + ".1")
            path.rename(rotated)
            path.write_text("a new day\n")
        daemon.wait_protected()
        for path in sorted(logs.glob("*.1")):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        for number in range(150):  # new files that look random, or are packed
            (tree / f"{number}.key").write_bytes(os.urandom(1000))
            (tree / f"{number}.gz").write_bytes(gzip.compress(os.urandom(3000)))
        os.rename(tree / "1", tree / "one")
        daemon.wait_protected()
        assert incident(daemon) is None
        daemon.stop()
