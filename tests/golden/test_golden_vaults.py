"""Vaults of every version of the format, kept for ever: streamd and the rescue script restore them.

They share no code, and both must bring back the trees that were there when the vault was made.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden.trees import from_json
from rescue_script import load
from system.daemon_process import Daemon, instant
from system.tree import Entry, difference, listing

from streamd import rescue as package
from streamd.effects import SystemClock
from streamd.errors import NotFound
from streamd.format.keys import decode_host_key
from streamd.restore.session import RestoreRequest, RestoreSession, Selection
from streamd.storage.local import LocalBlobStore
from streamd.vault.vault import open_vault

VAULTS = sorted(path for path in (Path(__file__).parent / "vaults").iterdir() if path.is_dir())
rescue = load()
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def rows(vault: Path) -> list[dict[str, Any]]:
    return json.loads((vault / "expected.json").read_text("utf-8"))


def promised(target: Path) -> dict[bytes, Entry]:
    """Return the tree; of a source with several paths, what is below the folder that they share."""
    tree = listing(target)
    shared = b"tmp/streamd-golden/papers/"
    if b"tmp" not in tree:
        return tree
    return {
        path[len(shared) :]: Entry(
            **{
                **{name: getattr(entry, name) for name in Entry.__slots__},
                "linked": tuple(name[len(shared) :] for name in entry.linked),
            }
        )
        for path, entry in tree.items()
        if path.startswith(shared)
    }


@pytest.fixture(params=VAULTS, ids=lambda path: path.name)
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A copy of a golden vault: nothing may change the one that is kept."""
    before = {path: path.read_bytes() for path in request.param.rglob("*") if path.is_file()}
    copy = tmp_path / "golden"
    shutil.copytree(request.param, copy)
    yield copy
    assert {path: path.read_bytes() for path in before} == before


async def restored(vault: Path, source: str, at_us: int, target: Path) -> bool:
    """Restore with streamd; say whether there was anything."""
    key = decode_host_key((vault / "host.key").read_bytes(), "host.key")
    opened = await open_vault(LocalBlobStore(vault / "vault"), key)
    request = RestoreRequest(
        selections=[Selection(source)], at_us=at_us, target=bytes(target), verify=True
    )
    try:
        report = await RestoreSession(opened, request, clock=SystemClock()).run()
    except NotFound:
        return False
    assert not report.damage
    assert not report.refused
    return True


def test_streamd_restores_every_golden_vault(vault: Path, tmp_path: Path) -> None:
    for number, row in enumerate(rows(vault)):
        target = tmp_path / f"out-{number}"
        was_there = asyncio.run(restored(vault, row["source"], row["at_us"], target))
        assert was_there == bool(row["tree"])
        if was_there:
            assert difference(from_json(row["tree"]), promised(target)) == [], row["at_us"]
            shutil.rmtree(target)


def test_its_command_restores_every_golden_vault(vault: Path, tmp_path: Path) -> None:
    sources = '[sources.papers]\npaths = ["/nowhere/papers"]\n'
    host = tmp_path / "host"
    daemon = Daemon(host, tmp_path / "tree", source="web", tables=sources)
    (tmp_path / "tree").mkdir()
    shutil.move(vault / "vault", daemon.vault)
    shutil.copy(vault / "host.key", host / "vault.key")
    (host / "vault.key").chmod(0o600)
    row, target = rows(vault)[-1], tmp_path / "out"
    daemon.command("restore", row["source"], "--to", str(target), "--at", instant(row["at_us"]))
    assert difference(from_json(row["tree"]), promised(target)) == []
    daemon.command("verify", "--level", "full")


def test_the_rescue_script_restores_every_golden_vault(vault: Path, tmp_path: Path) -> None:
    place = ["--vault", str(vault / "vault"), "--key-file", str(vault / "host.key")]
    for number, row in enumerate(rows(vault)):
        target = tmp_path / f"out-{number}"
        at = f"@{row['at_us'] // 1_000_000}.{row['at_us'] % 1_000_000:06}"
        code = rescue.main(["restore", row["source"], str(target), "--at", at, *place])
        assert code == (0 if row["tree"] else 9)
        if row["tree"]:
            assert difference(from_json(row["tree"]), promised(target)) == [], row["at_us"]
            shutil.rmtree(target)


def test_the_kit_and_the_script_alone_restore_it(vault: Path, tmp_path: Path) -> None:
    """As somebody would do it: another process, without streamd on its path, with the kit."""
    row = rows(vault)[-1]
    target = tmp_path / "out"
    line = [package.script_path(), "restore", row["source"], str(target)]
    line += ["--kit", str(vault / "kit.txt"), "--vault", str(vault / "vault")]
    blocker = "import sys; sys.modules['streamd'] = None; import runpy; "
    blocker += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-X", "utf8", "-c", blocker, *line],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert difference(from_json(row["tree"]), promised(target)) == []


def test_there_is_a_golden_vault_for_this_version() -> None:
    assert [path.name for path in VAULTS] == ["v1"]
    kinds = {rows(path)[-1]["source"] for path in VAULTS}
    assert kinds
    found = [row for path in VAULTS for row in rows(path) if row["tree"]]
    assert any("large" in row["tree"] for row in found)
    assert any("\xff" in path for row in found for path in row["tree"])
