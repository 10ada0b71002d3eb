"""Command sources and SQLite databases through a real streamd, and back."""

import os
import sqlite3
import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon

SCRIPT = """#!/bin/sh
echo run >> "{runs}"
[ -e "{broken}" ] && {{ echo part; echo "the server is down" >&2; exit 7; }}
head -c 6000000 /dev/zero | tr '\\0' 'a'
cat "{data}"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "dump"
    (tmp_path / "data").write_text("first")
    names = {name: tmp_path / name for name in ("runs", "broken", "data")}
    path.write_text(SCRIPT.format(**names))
    path.chmod(0o755)
    return path


def installation(tmp_path: Path, program: Path, **options) -> Daemon:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    table = (
        f'[sources.db]\nkind = "command"\ncommand = ["{program}"]\nfile_name = "dump.sql"\n'
        'policy = "test"\nmin_size = "1KiB"\n'
    )
    return Daemon(tmp_path / "streamd", tree, tables=table, **options)


@pytest.mark.timeout(300)
def test_a_dump_is_captured_restored_and_survives_a_failing_program(tmp_path, program) -> None:
    with installation(tmp_path, program) as daemon:
        daemon.init()
        daemon.command("capture", "db")
        daemon.command("restore", "db", "--to", str(tmp_path / "first"))
        assert (tmp_path / "first" / "dump.sql").read_bytes() == b"a" * 6_000_000 + b"first"
        (tmp_path / "data").write_text("second")
        (tmp_path / "broken").touch()
        facts = daemon.facts("capture", "db", codes=(3,))
        assert facts["complete"] is False
        told = daemon.facts("history", "db:/dump.sql")["history"]
        assert [line["event"] for line in told] == ["appeared", "gap"]
        assert daemon.command("cat", "db:/dump.sql").endswith("afirst")
        (tmp_path / "broken").unlink()
        daemon.command("capture", "db")
        assert daemon.command("cat", "db:/dump.sql").endswith("asecond")
        told = daemon.facts("history", "db:/dump.sql")["history"]
        assert [line["event"] for line in told if line["event"] != "gap"] == ["appeared", "changed"]
        daemon.command("restore", "db", "--in-place", "--yes", codes=(2,))
        assert len((tmp_path / "runs").read_text().splitlines()) == 3


@pytest.mark.timeout(300)
def test_the_daemon_runs_what_is_due_once_and_says_what_failed(tmp_path, program) -> None:
    (tmp_path / "broken").touch()
    with installation(tmp_path, program) as daemon:
        daemon.init()
        daemon.start()
        until = time.monotonic() + 100
        while not (problems := daemon.facts("problems", codes=(0, 3))["problems"]):
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        assert (problems[0]["source"], problems[0]["reason"]) == ("db", "command-failed")
        assert "the server is down" in problems[0]["detail"]
        assert daemon.command("status", codes=(3,))
        lags = {
            labels["source"]: value for labels, value in daemon.metrics("streamd_rpo_lag_seconds")
        }
        assert lags["db"] > 0
        runs = {
            labels["result"]: value
            for labels, value in daemon.metrics("streamd_command_runs_total")
            if labels["source"] == "db"
        }
        assert runs["failed"] >= 1
        daemon.stop()
        (tmp_path / "broken").unlink()
        daemon.start()
        until = time.monotonic() + 100
        while daemon.facts("problems", codes=(0, 3))["problems"]:
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        done = len((tmp_path / "runs").read_text().splitlines())
        daemon.stop()
        daemon.start()
        daemon.wait_protected()
        daemon.stop()
        assert len((tmp_path / "runs").read_text().splitlines()) == done, "not due, and run again"


@pytest.mark.timeout(300)
def test_a_program_that_runs_on_does_not_hold_up_others_nor_the_stop(tmp_path, program) -> None:
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    with installation(tmp_path, program) as daemon:
        daemon.init()
        daemon.start(wait=False)
        until = time.monotonic() + 100
        marks = {}
        while not marks.get(("tree", "vault"), 0) > time.time() - 5:
            marks = daemon.watermarks()
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        (daemon.tree / "file").write_text("newer")
        changed = time.time()
        while daemon.watermarks()["tree", "vault"] < changed:
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        daemon.stop()


@pytest.mark.timeout(300)
def test_a_database_in_use_is_captured_with_what_is_in_its_wal(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        daemon.start()
        database = sqlite3.connect(tree / "app.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("CREATE TABLE t (n INTEGER)")
        daemon.wait_protected()
        for number in range(50):  # goes to the -wal only: app.db itself does not change
            database.execute("INSERT INTO t VALUES (?)", (number,))
        before = (tree / "app.db").stat()
        daemon.wait_protected()
        assert (tree / "app.db").stat().st_mtime_ns == before.st_mtime_ns
        daemon.restore(tmp_path / "restored")
        assert sorted(os.listdir(tmp_path / "restored")) == ["app.db", "app.db-shm", "app.db-wal"]
        with sqlite3.connect(tmp_path / "restored" / "app.db") as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT count(*) FROM t").fetchone() == (50,)
        copy.close()
        database.close()  # the last one out takes the -wal away
        daemon.wait_protected()
        daemon.restore(tmp_path / "after")
        assert os.listdir(tmp_path / "after") == ["app.db"]
        daemon.stop()
