"""An operator's day after damage: verify says what is wrong, heals what it can, and goes on."""

import os
import shutil
import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon
from system.tree import difference, listing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def daemon(tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for index in range(40):
        (tree / f"small{index}").write_bytes(os.urandom(2_000 + index))
    (tree / "large").write_bytes(os.urandom(9_000_000))
    with Daemon(tmp_path / "work", tree) as daemon:
        daemon.init()
        yield daemon


def packs(daemon: Daemon) -> list[Path]:
    return sorted(path for path in daemon.vault.glob("d/*/p/*/*") if path.is_file())


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes((byte[0] ^ 1,)))


def test_damage_is_named_healed_and_forgotten(daemon: Daemon, tmp_path: Path) -> None:
    daemon.command("capture")
    sound = daemon.facts("verify", "--level", "sample", "--seed", "7")
    assert (sound["sound"], sound["seed"]) == (True, 7)
    assert sound["sampled_frames"] > 10
    for path in packs(daemon):
        spoil(path, path.stat().st_size // 2)
    found = daemon.facts("verify", "--level", "full", codes=(7,))
    assert found["missing_chunks"] > 0
    assert any("large" in line["path"] for line in found["affected"])
    healed = daemon.facts("verify", "--level", "full", "--heal", codes=(7,))
    assert healed["healed_chunks"] > 0
    assert healed["lost_chunks"] == 0
    again = daemon.facts("verify", "--level", "full")
    assert again["sound"]
    assert again["notes"]  # the damaged objects wait for collection
    daemon.command("capture")
    daemon.restore(tmp_path / "restored")
    assert difference(listing(daemon.tree), _below(tmp_path / "restored", daemon.tree)) == []


def _below(to: Path, tree: Path) -> dict:
    inside = to / str(tree).lstrip("/")
    return listing(inside if inside.exists() else to)


def test_without_its_state_a_running_host_heals_and_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    daemon.command("capture")
    shutil.rmtree(daemon.workdir / "state")
    began = time.time()
    daemon.start()
    daemon.wait_protected()
    (daemon.tree / "fresh").write_bytes(b"after the loss")
    daemon.wait_protected()
    gaps = daemon.facts("points", "tree")["sources"][0]["gaps"]
    assert gaps, "the time since the last record is a gap"
    victim = max(packs(daemon), key=lambda path: path.stat().st_size)
    victim.unlink()
    found = daemon.facts("verify", codes=(7,))
    assert found["missing_chunks"] > 0
    healed = daemon.facts("verify", "--heal")  # by the daemon, which holds the lock
    assert (healed["lost_chunks"], healed["missing_chunks"]) == (0, 0)
    assert daemon.facts("verify", "--level", "full")["sound"]
    total = [value for _, value in daemon.metrics("streamd_verify_healed_chunks_total")]
    assert total == [healed["healed_chunks"]]
    marks = daemon.metrics("streamd_verify_last_success_timestamp_seconds")
    assert {labels["level"]: value > began for labels, value in marks}["structure"]
    daemon.stop()
    daemon.restore(tmp_path / "restored")
    assert difference(listing(daemon.tree), _below(tmp_path / "restored", daemon.tree)) == []
