"""A configuration is checked against the host it is for, and secrets stay secret."""

import os
from pathlib import Path

import pytest

from streamd.config.host import check_host, read_secret
from streamd.config.load import load
from streamd.config.model import Config, SecretSource
from streamd.errors import ConfigInvalid, SecretUnreadable

MARKER = "s3cret-MARKER-s3cret"


def source_in(directory: Path, text: str = "") -> Config:
    file = directory / "streamd.toml"
    paths = f'[sources.a]\npaths = ["{directory}/tree"]\n'
    file.write_text(f'[daemon]\nstate = "{directory}/state"\n{text}{paths}', "utf-8")
    return load(str(file))


def secret(directory: Path, mode: int = 0o600, content: bytes = MARKER.encode() + b"\n") -> str:
    file = directory / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def test_paths_that_exist_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    check_host(source_in(tmp_path))


def test_a_path_that_is_missing_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        check_host(source_in(tmp_path))
    assert caught.value.problems == (
        f'{tmp_path}/streamd.toml:4: sources.a.paths[0]: "{tmp_path}/tree" does not exist',
    )


def test_a_link_into_our_own_state_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "tree").symlink_to(tmp_path / "state")
    with pytest.raises(ConfigInvalid) as caught:
        check_host(source_in(tmp_path))
    assert "contain one another" in caught.value.problems[0]


def test_secrets_open_to_others_are_told_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    path = secret(tmp_path, 0o644)
    text = f'[vault]\nauth = "sas"\nsas_file = "{path}"\nkey_file = "{path}"\n'
    with pytest.raises(ConfigInvalid) as caught:
        check_host(source_in(tmp_path, text))
    assert [problem.split(": ", 1)[1] for problem in caught.value.problems] == [
        f"vault.sas_file: {path}: readable by others (mode 0644)",
        f"vault.key_file: {path}: readable by others (mode 0644)",
    ]
    assert MARKER not in str(caught.value.problems)


def test_a_secret_is_read_without_its_newline_and_hidden(tmp_path: Path) -> None:
    value = read_secret(SecretSource(key="vault.sas", file=secret(tmp_path)))
    assert value.get_secret_value() == MARKER
    assert MARKER not in repr(value)
    assert MARKER not in str(value)


def test_a_credential_is_read_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret(tmp_path)
    source = SecretSource(key="vault.sas", credential="secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(source).get_secret_value() == MARKER
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(SecretUnreadable, match="systemd passed no credentials"):
        read_secret(source)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\n", "empty"), (b"x" * 70_000, "too long"), (b"\xff", "not UTF-8")]
)
def test_what_cannot_be_a_secret_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(SecretUnreadable, match=reason) as caught:
        read_secret(SecretSource(key="vault.sas", file=secret(tmp_path, content=content)))
    assert caught.value.advice().startswith("give streamd alone access")


def test_a_missing_or_odd_secret_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretUnreadable, match="No such file"):
        read_secret(SecretSource(key="vault.sas", file=str(tmp_path / "none")))
    with pytest.raises(SecretUnreadable, match="directory"):
        read_secret(SecretSource(key="vault.sas", file=os.fspath(tmp_path)))


def test_a_ca_file_that_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(ConfigInvalid) as caught:
        check_host(source_in(tmp_path, '[vault]\nca_file = "/nonexistent/ca.pem"\n'))
    assert "vault.ca_file" in caught.value.problems[0]
