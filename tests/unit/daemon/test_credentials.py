"""From the configuration to who we are: secrets, places, and the proxy's password."""

from pathlib import Path

import pytest

from streamd.config.model import Config, VaultConfig
from streamd.config.rules import check
from streamd.daemon.credentials import access_of, credential_files
from streamd.daemon.host import budget_bytes, packs_in_flight
from streamd.errors import SecretUnreadable

URL = "https://account.blob.core.windows.net/cont/pre"


def secret(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def config(**vault: object) -> Config:
    return Config(vault=VaultConfig(url=URL, **vault))  # type: ignore[arg-type]


def test_the_place_of_a_secret_is_named_and_its_value_is_not_shown(tmp_path: Path) -> None:
    path = secret(tmp_path, "sas", "se=2030-01-01&sig=TOPSECRET\n")
    access = access_of(config(auth="sas", sas_file=path))
    assert access.secret == "se=2030-01-01&sig=TOPSECRET"
    assert access.place == path
    assert access.expires_us == 1_893_456_000_000_000
    assert "TOPSECRET" not in repr(access)
    assert access_of(config(auth="managed-identity")).place == "vault.auth = managed-identity"


def test_the_proxys_password_comes_from_its_file(tmp_path: Path) -> None:
    path = secret(tmp_path, "proxy", "p@ss/w:rd")
    access = access_of(config(proxy="http://me@proxy:3128", proxy_password_file=path))
    assert access.proxy == "http://me:p%40ss%2Fw%3Ard@proxy:3128"
    assert "p%40" not in repr(access)
    assert access_of(config(proxy="http://proxy:3128")).proxy == "http://proxy:3128"


def test_a_password_without_a_user_is_a_mistake(tmp_path: Path) -> None:
    path = secret(tmp_path, "proxy", "x")
    for proxy in (None, "http://proxy:3128"):
        problems = check(config(proxy=proxy, proxy_password_file=path))
        assert any("http://USER@HOST:PORT" in one.message for one in problems)
    problems = check(config(proxy="http://me@proxy:3128", proxy_password_file=path))
    assert not any("USER@" in one.message for one in problems)


def test_a_changed_file_is_a_new_access_once(tmp_path: Path) -> None:
    path = secret(tmp_path, "sas", "sig=1")
    files = credential_files(config(auth="sas", sas_file=path))
    assert files.changed() is None
    Path(secret(tmp_path, "new", "sig=22")).rename(path)
    found = files.changed()
    assert found is not None
    assert found.secret == "sig=22"
    assert files.changed() is None
    Path(path).unlink()
    for _ in range(2):
        with pytest.raises(SecretUnreadable):
            files.changed()
    secret(tmp_path, "sas", "sig=333")
    assert files.changed() is not None


def test_the_memory_limit_says_how_many_packs_may_be_uploaded_at_once() -> None:
    assert packs_in_flight(64 << 20) == 1
    assert packs_in_flight(256 << 20) == 4
    assert packs_in_flight(64 << 30) == 32


def test_packs_that_are_sent_are_within_the_memory_limit_too() -> None:
    assert budget_bytes(256 << 20, sends=False) == 128 << 20
    assert budget_bytes(256 << 20, sends=True) == 96 << 20  # four packs of 16 MiB are held
    assert budget_bytes(64 << 20, sends=True) == 24 << 20
