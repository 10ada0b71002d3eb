"""A log to which a little is appended again and again costs about what was appended.

STREAMD_LOG_MIB (default 8; 100 for acceptance) is its size, STREAMD_APPENDS (default 32; 1,000) how
often 200 bytes are appended, ten times a second. Figures are printed (`pytest -s`).
"""

import os
import time

import pytest
from system.daemon_process import Daemon, now_us
from system.tree import directory_bytes

MIB = 1 << 20
SIZE = int(os.environ.get("STREAMD_LOG_MIB", "8")) * MIB
APPENDS = int(os.environ.get("STREAMD_APPENDS", "32"))
APPENDED = 200
FIRST = 5  # appends until the daemon knows that it grows


@pytest.mark.timeout(240 + APPENDS // 2)
def test_a_growing_log_costs_about_what_was_appended_and_every_instant_is_exact(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    log = tree / "log"
    with log.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    instants: dict[int, int] = {}
    with Daemon(tmp_path / "streamd", tree, source_options={"reread": "0s"}) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        with log.open("ab", buffering=0) as file:
            for _ in range(FIRST):
                file.write(os.urandom(APPENDED))
                time.sleep(0.4)
            daemon.wait_protected()
            before = directory_bytes(daemon.vault)
            segments = len(list(daemon.vault.rglob("*")))
            began = time.monotonic()
            for number in range(APPENDS):
                if number % (APPENDS // 4) == 0:
                    instants[now_us()] = log.stat().st_size
                file.write(os.urandom(APPENDED))
                time.sleep(0.1)
            daemon.wait_protected()
            grown = directory_bytes(daemon.vault) - before
            objects = len(list(daemon.vault.rglob("*"))) - segments
        print(
            f"\n{APPENDS} appends of {APPENDED} bytes to {SIZE // MIB} MiB in"
            f" {time.monotonic() - began:.0f} s: {APPENDS * APPENDED:,} bytes appended,"
            f" {grown:,} stored in {objects} objects, {grown / (APPENDS * APPENDED):.1f} x,"
            f" {grown // max(objects, 1):,} each"
        )
        # each capture also has a segment of its own, with the file's record and its list
        assert grown < 5 * APPENDS * APPENDED + 8 * 1024 * objects
        daemon.wait_protected()
        daemon.stop()
        content = log.read_bytes()
        for at, size in instants.items():
            daemon.restore(tmp_path / str(at), at=at)
            restored = (tmp_path / str(at) / "log").read_bytes()
            assert len(restored) <= size
            assert size - len(restored) <= 50 * APPENDED
            assert restored == content[: len(restored)]
        daemon.restore(tmp_path / "back")
        assert (tmp_path / "back/log").read_bytes() == content
