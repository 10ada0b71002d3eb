"""Secret files: ours alone, whole or not at all, and still their owner's when they are replaced."""

import os
import stat
from pathlib import Path

import pytest

from streamd.config.private_files import read_private, write_private
from streamd.errors import SecretUnreadable


def test_a_new_file_is_ours_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "secret.new").write_text("left over")
    write_private(str(path), b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["secret"]
    assert read_private(str(path), 10) == b"x"


@pytest.mark.root
def test_a_file_that_is_replaced_stays_its_owner_s(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    write_private(str(path), b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_that_is_replaced_is_overwritten_unless_somebody_else_holds_it(
    tmp_path: Path,
) -> None:
    path, link = tmp_path / "secret", tmp_path / "kept"
    write_private(str(path), b"the old secret")
    with path.open("rb") as old:
        write_private(str(path), b"new")
        assert old.read() == bytes(14)
    os.link(path, link)
    write_private(str(path), b"newer")
    assert (link.read_bytes(), path.read_bytes()) == (b"new", b"newer")


def test_what_others_can_read_or_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(SecretUnreadable, match="No such file"):
        read_private(str(path), 10)
    path.write_bytes(b"12345678901")
    path.chmod(0o640)
    with pytest.raises(SecretUnreadable, match="by others"):
        read_private(str(path), 100)
    path.chmod(0o600)
    with pytest.raises(SecretUnreadable, match="too long"):
        read_private(str(path), 10)
    with pytest.raises(SecretUnreadable, match="cannot be written"):
        write_private(str(path / "below"), b"x")
