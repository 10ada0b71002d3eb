"""Keys change while the daemon runs: it follows, loses nothing, and tells no secret."""

import json
import random
import shutil
from pathlib import Path

import pytest
from azurite import azurite  # noqa: F401 - a fixture
from system.azure_vault import azurite_vault
from system.daemon_process import Daemon
from system.tree import difference, listing

SIZE = 2_000_000


def put(daemon: Daemon, name: str, size: int = 1000) -> None:
    (daemon.tree / name).write_bytes(random.Random(name).randbytes(size))
    daemon.wait_protected()


def kit_of(daemon: Daemon) -> tuple[str, str]:
    return "--kit", str(daemon.workdir / "kit.txt")


def role(daemon: Daemon) -> dict[str, str]:
    [(labels, value)] = daemon.metrics("streamd_keys_info")
    assert value == 1
    return labels


def assert_restores(daemon: Daemon, to: Path) -> None:
    daemon.command("restore", daemon.source, "--to", str(to), "--devices", *kit_of(daemon))
    assert difference(listing(daemon.tree), listing(to)) == []
    facts = daemon.facts("verify", "--level", "full", *kit_of(daemon))
    assert facts["sound"], facts["damage"]


def secrets_of(*texts: str) -> set[str]:
    """Return what a key file and a kit have in them that must be nowhere else."""
    found: set[str] = set()
    for text in texts:
        if text.startswith("{"):
            fields = json.loads(text)
            found |= {fields["signing_key"], fields["domain_secret"]}
            private = fields.get("private") or {}
            found |= {private["admin"], *private["meta"].values()} if private else set()
        else:
            found |= {line[15:] for line in text.splitlines() if line.startswith("recovery-code:")}
    return found


@pytest.mark.root
@pytest.mark.timeout(300)
def test_a_running_daemon_follows_rotations_and_roles(tmp_path: Path) -> None:
    (tree := tmp_path / "tree").mkdir()
    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        key_file = daemon.workdir / "vault.key"
        secrets = secrets_of(key_file.read_text(), (daemon.workdir / "kit.txt").read_text())
        daemon.start()
        put(daemon, "before", SIZE)
        assert role(daemon) == {"role": "full", "generation": "1"}
        assert daemon.facts("key", "rotate", "pair")["daemon"] == "follows"
        assert role(daemon) == {"role": "full", "generation": "2"}
        put(daemon, "after-pair", SIZE)
        assert daemon.facts("key", "rotate", "certificate")["daemon"] == "follows"
        secrets |= secrets_of(key_file.read_text())
        put(daemon, "after-certificate", SIZE)
        changed = daemon.facts("key", "host-role", "write-only", *kit_of(daemon))
        assert changed == {"role": "write-only", "daemon": "follows", "kit_is_here": True}
        assert role(daemon) == {"role": "write-only", "generation": "2"}
        put(daemon, "after-role", SIZE)
        refused = daemon.facts("ls", daemon.source, codes=(5,))
        assert refused["error"]["code"] == "host-write-only"
        assert daemon.facts("retention", "run", codes=(5,))["error"]["code"] == "host-write-only"
        daemon.facts("retention", "run", *kit_of(daemon))
        put(daemon, "after-retention", SIZE)
        daemon.stop()
        shutil.rmtree(daemon.workdir / "state")
        before = sum(p.stat().st_size for p in daemon.vault.rglob("*") if p.is_file())
        (tree / "before").unlink()
        daemon.start()
        put(daemon, "after-loss")
        grown = sum(p.stat().st_size for p in daemon.vault.rglob("*") if p.is_file()) - before
        assert grown < SIZE, "the content was in the vault already"
        daemon.stop()
        assert_restores(daemon, tmp_path / "restored")
        gaps = daemon.facts("points", *kit_of(daemon))["sources"][0]["gaps"]
        assert gaps
        log = daemon.log.read_text()
        assert [secret for secret in secrets if secret in log] == []
        assert "keys-followed" in log


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.timeout(300)
def test_keys_in_a_container_change_and_an_empty_machine_restores(
    tmp_path: Path, azurite: object
) -> None:
    (tree := tmp_path / "tree").mkdir()
    options = azurite_vault(azurite, tmp_path)
    with Daemon(tmp_path / "streamd", tree, **options) as daemon:
        daemon.init()
        daemon.start()
        put(daemon, "before", SIZE)
        daemon.facts("key", "rotate", "pair")
        daemon.facts("key", "rotate", "certificate")
        daemon.facts("key", "host-role", "write-only", *kit_of(daemon))
        put(daemon, "after", SIZE)
        daemon.stop()
        # Another machine: the configuration of the access, and nothing else.
        for folder in ("local", "state"):
            shutil.rmtree(daemon.workdir / folder)
        (daemon.workdir / "vault.key").unlink()
        assert_restores(daemon, tmp_path / "restored")
