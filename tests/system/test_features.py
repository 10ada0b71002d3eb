"""A vault that asks writers for more than they can: nothing is written, and everything is read."""

from pathlib import Path

import msgspec
from system.daemon_process import Daemon
from system.tree import difference, listing

from streamd.format import layout
from streamd.format.keys import decode_host_key
from streamd.format.vault_config import VaultConfig, decode_signed, encode_signed


def test_an_unknown_feature_for_writing_stops_captures_and_not_restores(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("before")
    daemon = Daemon(tmp_path / "host", tree)
    daemon.init()
    daemon.command("capture")
    key = decode_host_key((daemon.workdir / "vault.key").read_bytes(), "vault.key")
    assert key.private is not None
    first = (daemon.vault / layout.config_name(0)).read_bytes()
    config = decode_signed(first, key.public.admin, VaultConfig)
    features = msgspec.structs.replace(config.features, write=("parity",))
    newer = msgspec.structs.replace(config, number=1, features=features)
    signed = encode_signed(newer, key.private.admin)
    (daemon.vault / layout.config_name(1)).write_bytes(signed)
    (tree / "a").write_text("after")
    before = {path for path in daemon.vault.rglob("*") if path.is_file()}
    code = 7
    daemon.command("capture", codes=(code,))
    daemon.command("retention", "run", codes=(code,))
    assert {path for path in daemon.vault.rglob("*") if path.is_file()} == before
    (tree / "a").write_text("before")
    daemon.restore(tmp_path / "out", at="latest")
    found = difference(listing(tree), listing(tmp_path / "out"), ignore=("mtime_ns",))
    assert found == []
