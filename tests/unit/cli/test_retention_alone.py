"""A retention run of a directory vault opens what it works on, and nothing that captures."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.cli.main import main
from streamd.config.load import load
from streamd.daemon.opening import open_site
from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import AlreadyRunning
from streamd.format import slots
from streamd.format.envelope import Kind


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("host")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("one")
    (tmp_path / "streamd.toml").write_text(
        f'[vault]\nurl = "file://{tmp_path}/vault"\nkey_file = "{tmp_path}/host.key"\n'
        f'[daemon]\nstate = "{tmp_path}/state"\nsocket = "{tmp_path}/socket"\n'
        f'[metrics]\nlisten = "off"\n[sources.web]\npaths = ["{tmp_path}/tree"]\npolicy = "none"\n'
        '[policies.none]\ncontinuous = "0s"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "ARGON_ITERATIONS", 1)
        patch.setattr(slots, "ARGON_LANES", 1)
        patch.setattr(slots, "ARGON_MEMORY_KIB", 64)
        done(tmp_path, "init", "--kit", str(tmp_path / "kit.txt"))
    done(tmp_path, "capture")
    return tmp_path


def done(root: Path, *words: str) -> None:
    assert main([*words, "-c", str(root / "streamd.toml")]) == 0


def test_what_captures_is_not_loaded() -> None:
    code = (
        "import sys, streamd.cli.retention; sys.exit(', '.join(name for name in sys.modules"
        " if name.startswith(('streamd.pipeline', 'streamd.sources', 'streamd.daemon.host'))) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_older_half_of_the_points_goes(root, capsys) -> None:
    for content in ("two", "three"):
        (root / "tree" / "a").write_text(content)
        done(root, "capture")
    capsys.readouterr()
    done(root, "retention", "run")
    assert "1 points kept, " in (told := capsys.readouterr().out)
    assert " 0 expired" not in told
    done(root, "verify", "--level", "full")
    done(root, "restore", "web", "--to", str(root / "out"))
    assert (root / "out" / "a").read_text() == "three"


def test_what_was_sealed_and_not_put_is_put_before_anything_else(root) -> None:
    (root / "tree" / "a").write_text("once more")
    done(root, "capture")
    catalog = Catalog(str(root / "state"))
    with catalog.reader() as connection:
        [name] = connection.execute(
            "SELECT name FROM object WHERE kind = ? ORDER BY number DESC LIMIT 1",
            (str(Kind.SEGMENT),),
        ).fetchone()
    segment = root / "vault" / name
    data = segment.read_bytes()

    def unput(connection) -> None:  # as a crash between the commit and the put leaves it
        connection.execute(
            "INSERT INTO unput SELECT number, ? FROM object WHERE name = ?", (data, name)
        )
        connection.execute("UPDATE object SET state = 0 WHERE name = ?", (name,))

    catalog.write_now(unput)
    catalog.close()
    segment.unlink()
    done(root, "retention", "run")
    done(root, "verify", "--level", "full")
    catalog = Catalog(str(root / "state"))
    assert not catalog.write_now(objects.unput)
    catalog.close()


def test_nobody_else_may_hold_the_state_directory(root) -> None:
    config = load(str(root / "streamd.toml"))

    async def twice() -> None:
        clock, entropy = SystemClock(), SystemEntropy()
        async with open_site(config, clock=clock, entropy=entropy):
            with pytest.raises(AlreadyRunning):
                async with open_site(config, clock=clock, entropy=entropy):
                    pass
        async with open_site(config, clock=clock, entropy=entropy) as site:
            assert site.put_state is objects.ObjectState.VAULT

    asyncio.run(twice())
