"""The keys of a vault as an operator handles them: kit, slots, roles, rotation."""

import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from plain_host import PlainHost

from streamd.catalog.db import FILE_NAME
from streamd.cli import init as init_command
from streamd.cli.main import main
from streamd.daemon import keyholder
from streamd.effects import SystemClock
from streamd.errors import VaultUnreachable
from streamd.format.keys import decode_host_key
from streamd.format.kit import decode_kit
from streamd.maintenance.checkpoint_due import CHECKPOINT_WANTED

CODES = {
    "ok": 0,
    "usage": 2,
    "config": 4,
    "refused": 5,
    "unreachable": 6,
    "integrity": 7,
    "policy": 8,
    "missing": 9,
}
PASSPHRASE = "marker passphrase of the test"


class Site(PlainHost):
    """A host with a source, a directory vault and a configuration."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(root)
        self.kit, self._capsys = root / "kit.txt", capsys
        (self.tree / "a").write_text("content of a")
        self.said = ""  # everything that was ever printed

    def run(self, *arguments: str, code: str = "ok", config: bool = True) -> str:
        where = ["-c", str(self.config if config else self.root / "none.toml")]
        found = main([*arguments, *where])
        output, errors = self._capsys.readouterr()
        self.said += output + errors
        assert code == "any" or found == CODES[code], output + errors
        return output + errors

    def facts(self, *arguments: str, code: str = "ok", config: bool = True) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code, config=config))

    def slug(self, *arguments: str, code: str, config: bool = True) -> str:
        return str(self.facts(*arguments, code=code, config=config)["error"]["code"])

    def secret(self, name: str, text: str) -> str:
        path = self.root / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def names(self, *options: str, config: bool = True) -> list[str]:
        found = self.facts("ls", f"web:{self.tree}", *options, config=config)
        return sorted(entry["path"].rsplit("/", 1)[1] for entry in found["entries"])

    def objects(self, part: str) -> set[str]:
        return {str(p.relative_to(self.vault)) for p in self.vault.rglob(f"{part}*") if p.is_file()}


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    made = Site(tmp_path, capsys)
    made.run("init", "--kit", str(made.kit))
    made.run("capture")
    return made


def host_key(site: Site) -> Any:
    return decode_host_key(site.key_file.read_bytes(), "host.key")


# -- init ------------------------------------------------------------------------------------------


def test_a_kit_is_written_for_us_alone_and_opens_the_vault(site: Site) -> None:
    for path in (site.kit, site.key_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kit = decode_kit(site.kit.read_bytes())
    assert (kit.url, bool(kit.code), bool(kit.ring)) == (f"file://{site.vault}", True, True)
    tested = site.facts("key", "test", "--kit", str(site.kit))
    assert (tested["sources"], tested["edition"], tested["kit_edition"]) == (["web"], 1, 1)


def test_a_code_of_its_own_is_not_in_the_kit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, code = Site(tmp_path, capsys), tmp_path / "code"
    site.run("init", "--kit", str(site.kit), "--code-file", str(code))
    site.run("capture")
    assert stat.S_IMODE(code.stat().st_mode) == 0o600
    assert code.read_text().strip() not in site.kit.read_text()
    assert site.slug("key", "test", "--kit", str(site.kit), code="usage") == "secret-unusable"
    site.facts("key", "test", "--kit", str(site.kit), "--code-file", str(code))
    wrong = site.secret("wrong", "A" * 32)
    told = site.slug("key", "test", "--kit", str(site.kit), "--code-file", wrong, code="refused")
    assert told == "key-rejected"


def test_on_a_terminal_the_code_is_shown_and_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, shown = Site(tmp_path, capsys), list[str]()
    monkeypatch.setattr("streamd.cli.context.has_terminal", lambda: True)
    monkeypatch.setattr(init_command, "show_code", shown.append)
    monkeypatch.setattr("streamd.cli.unlocked.ask", lambda _: shown[0].lower())
    site.run("init", "--kit", str(site.kit))
    site.run("capture")
    assert not decode_kit(site.kit.read_bytes()).code
    assert site.names("--kit", str(site.kit)) == ["a"]
    assert shown[0] not in site.kit.read_text() + site.key_file.read_text() + site.said


def test_init_leaves_no_vault_behind_when_the_kit_cannot_be_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, good = Site(tmp_path, capsys), init_command.write_kit

    def torn(places: Any, kit: bytes, code: str) -> None:
        good(places, kit[: len(kit) // 2], code)

    monkeypatch.setattr(init_command, "write_kit", torn)
    assert site.slug("init", "--kit", str(site.kit), code="config") == "kit-invalid"
    assert not site.kit.exists()
    assert not site.objects("config-")
    later = SystemClock.now_us
    monkeypatch.setattr(SystemClock, "now_us", lambda clock: later(clock) + 90_000_000)
    monkeypatch.setattr(init_command, "write_kit", good)
    site.run("init", "--kit", str(site.kit))
    site.facts("key", "test", "--kit", str(site.kit))


def test_a_kit_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, capsys)
    site.kit.write_text("precious")
    assert site.slug("init", "--kit", str(site.kit), code="usage") == "usage-invalid"
    assert site.kit.read_text() == "precious"
    assert not site.key_file.exists()


# -- an empty machine ------------------------------------------------------------------------------


def test_an_empty_machine_restores_with_the_kit_alone(site: Site, tmp_path: Path) -> None:
    site.key_file.unlink()
    target = tmp_path / "back"
    site.run("restore", "web", "--to", str(target), "--kit", str(site.kit), config=False)
    assert [p.read_text() for p in target.rglob("a")] == ["content of a"]
    for command in (["points"], ["find", "web", "*"], ["verify"], ["history", "web:a"],
                    ["cat", "web:a"], ["diff", "web", "now", "now"], ["retention", "plan"]):  # fmt: skip
        site.run(*command, "--kit", str(site.kit), config=False)


def test_a_vault_that_was_moved_is_found_where_it_is_said_to_be(site: Site, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    site.vault.rename(moved)
    options = ("--kit", str(site.kit), "--vault", f"file://{moved}")
    assert site.names(*options, config=False) == ["a"]
    assert site.slug("ls", "web", "--kit", str(site.kit), code="refused", config=False) == (
        "container-missing"
    )


def test_a_kit_opens_a_vault_that_lost_its_own_keys(site: Site) -> None:
    for path in (site.vault / "k").iterdir():
        path.unlink()
    assert site.names("--kit", str(site.kit), config=False) == ["a"]


def test_a_kit_of_another_vault_is_told_apart(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", capsys)
    other.run("init", "--kit", str(other.kit))
    assert site.slug("ls", "web", "--kit", str(other.kit), code="config") == "kit-invalid"


def test_what_others_put_beside_the_keys_is_passed_over(site: Site) -> None:
    slot = json.loads(next((site.vault / "k").glob("slot-*")).read_bytes())
    for number, change in enumerate(({"kem": 9}, {"memory_kib": 2**40}, {"id": "x", "edition": 9})):
        junk = json.dumps(slot | {"salt": "AAAAAAAAAAAAAAAAAAAAAA=="} | change)
        (site.vault / "k" / f"slot-{'bcd'[number]}aaaaaaaaaaaa").write_text(junk)
    (site.vault / "k" / "ring-ffff-aaaaaaaaaaaaa").write_bytes(b"x" * 300)
    (site.vault / "k" / "slot-aaaaaaaaaaaaa").write_bytes(b"{")
    (site.vault / "k" / "slot-eaaaaaaaaaaaa").write_bytes(bytes(70_000))
    newest = max((site.vault / "v").iterdir()).read_bytes()
    (site.vault / "v" / "config-999999.json").write_bytes(newest.replace(b'"ring"', b'"gnir"'))
    (site.vault / "v" / "config-000777.json").write_bytes(
        newest.replace(b'"number": 0', b'"number": 777')
    )
    typed = [
        line
        for line in site.kit.read_text().splitlines()
        if line[:4] in {"form", "vaul", "url:", "reco"}
    ]
    paper = site.secret("paper.kit", "\n".join(typed))
    for kit in (str(site.kit), paper):
        assert site.names("--kit", kit, config=False) == ["a"]
    site.run("key", "rotate", "pair", "--kit", str(site.kit))
    assert site.names() == ["a"]
    broken = site.kit.read_text().replace("SLOT-----\n", "SLOT-----\nAAAA", 1)
    assert site.names("--kit", site.secret("broken.kit", broken), config=False) == ["a"]


# -- slots -----------------------------------------------------------------------------------------


def test_a_slot_of_every_kind_is_added_and_opens_the_vault(site: Site, tmp_path: Path) -> None:
    phrase, key = site.secret("phrase", PASSPHRASE + "\n"), str(tmp_path / "slot.key")
    second = str(tmp_path / "second.kit")
    site.run("key", "add", "--passphrase-file", phrase, "--label", "for the safe")
    site.run("key", "add", "--key-file", key)
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    site.run("key", "add", "--recovery-code", "--new-kit", second)
    for opener in (("--passphrase-file", phrase), ("--slot-key-file", key), ("--kit", second)):
        assert site.names(*opener, "--vault", f"file://{site.vault}", config=False) == ["a"]
        assert site.facts("key", "test", *opener)["edition"] == 4
    listed = site.facts("key", "list")
    found = sorted(slot["kind"] for slot in listed["slots"])
    assert found == ["key-file", "passphrase", "recovery-code", "recovery-code"]
    assert (listed["role"], listed["edition"], listed["proven"]) == ("full", 4, True)
    assert len(site.objects("slot-")) == 4, "slots of earlier rings are deleted"


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [
        ((), "usage-invalid"),
        (("--recovery-code",), "usage-invalid"),
        (("--passphrase",), "secret-unusable"),
        (("--passphrase-file", "short"), "secret-unusable"),
        (("--key-file", "short"), "secret-unusable"),
    ],
)
def test_a_slot_that_would_not_protect_is_refused(
    site: Site, arguments: tuple[str, ...], slug: str
) -> None:
    short = site.secret("short", "too short")
    before = site.objects("ring-")
    asked = [short if each == "short" else each for each in arguments]
    assert site.slug("key", "add", *asked, code="usage") == slug
    assert site.objects("ring-") == before


def test_a_secret_that_others_can_read_is_refused(site: Site) -> None:
    phrase = Path(site.secret("phrase", PASSPHRASE))
    phrase.chmod(0o644)
    told = site.slug("key", "add", "--passphrase-file", str(phrase), code="config")
    assert told == "secret-unreadable"


def test_a_revoked_slot_opens_nothing_that_comes_after(site: Site, tmp_path: Path) -> None:
    phrase, old = site.secret("phrase", PASSPHRASE), tmp_path / "old"
    slot = site.facts("key", "add", "--passphrase-file", phrase)["slot"]
    ring = next(iter((site.vault / "k").glob("ring-*")))
    kept = {path.name: path.read_bytes() for path in (site.vault / "k").iterdir()}
    old.mkdir()
    (old / "ring").write_bytes(ring.read_bytes())
    site.run("key", "revoke", slot)
    opener = ("--passphrase-file", phrase)
    assert site.slug("ls", "web", *opener, code="refused") == "key-rejected"
    # The storage shows the old objects again: they open the old ring, and are told apart from it.
    for name, data in kept.items():
        (site.vault / "k" / name).write_bytes(data)
    assert site.slug("key", "test", *opener, code="refused") == "key-rejected"
    site.run("key", "rotate", "pair")
    (site.tree / "b").write_text("later")
    site.run("capture")
    assert site.slug("cat", "web:b", *opener, code="refused") == "key-rejected"
    assert site.names() == ["a", "b"]


def test_the_last_slot_stays_and_an_unknown_one_is_said_to_be_unknown(site: Site) -> None:
    slot = site.facts("key", "list")["slots"][0]["id"]
    assert site.slug("key", "revoke", slot, code="policy") == "last-slot"
    assert site.slug("key", "revoke", "aaaaaaaaaaaaa", code="missing") == "not-found"
    site.facts("key", "test", "--kit", str(site.kit))


def test_a_slot_is_rotated_into_a_new_one(site: Site, tmp_path: Path) -> None:
    slot, fresh = site.facts("key", "list")["slots"][0]["id"], str(tmp_path / "fresh.kit")
    site.run("key", "rotate", "slot", slot, "--recovery-code", "--new-kit", fresh)
    assert site.names("--kit", fresh) == ["a"]
    # The old kit holds copies of its own slot and ring: they open what was written until then.
    assert site.slug("key", "test", "--kit", str(site.kit), code="refused") == "key-rejected"
    told = site.slug("key", "rotate", "pair", "--kit", str(site.kit), code="policy")
    assert told == "keys-changed"
    assert [s["id"] for s in site.facts("key", "list")["slots"]] != [slot]


def test_a_host_that_missed_a_change_is_sent_to_the_kit(site: Site) -> None:
    before = site.key_file.read_bytes()
    site.run("key", "add", "--passphrase-file", site.secret("phrase", PASSPHRASE))
    site.key_file.write_bytes(before)
    told = site.slug("key", "add", "--key-file", str(site.root / "k"), code="policy")
    assert told == "keys-changed"
    site.run("key", "host-role", "full", "--kit", str(site.kit))
    site.run("key", "add", "--key-file", str(site.root / "k"))


# -- rotation --------------------------------------------------------------------------------------


def test_new_key_pairs_seal_what_comes_and_the_old_ones_read_what_is_there(site: Site) -> None:
    assert site.facts("key", "rotate", "pair")["generation"] == 2
    (site.tree / "b").write_text("content of b")
    site.run("capture")
    for options in ((), ("--kit", str(site.kit))):
        assert site.names(*options) == ["a", "b"]
        assert site.facts("verify", "--level", "full", *options)["sound"]
    assert "content of b" in site.run("cat", "web:b", "--kit", str(site.kit))
    assert sorted(host_key(site).private.data) == [1, 2]
    assert host_key(site).public.generation == 2


def test_a_new_signing_key_is_certified_and_the_old_segments_stay_good(site: Site) -> None:
    before = host_key(site).signing_key
    assert site.facts("key", "rotate", "certificate")["certificate"] == 1
    assert host_key(site).signing_key != before
    (site.tree / "b").write_text("b")
    site.run("capture")
    assert site.facts("verify", "--level", "full")["sound"]
    assert site.names() == ["a", "b"]
    assert site.facts("key", "rotate", "certificate", "--kit", str(site.kit))["certificate"] == 2
    site.run("capture")
    assert site.facts("verify")["sound"]


def test_without_the_new_certificate_what_its_key_signed_is_damage(site: Site) -> None:
    site.run("key", "rotate", "certificate")
    (site.tree / "b").write_text("b")
    site.run("capture")
    next(site.vault.glob("w/*/cert-0001.json")).unlink()
    assert not site.facts("verify", code="integrity")["sound"]


def rotated(site: Site) -> bytes:
    """Give the site a new signing key, with something captured before and after; the old key file."""
    stolen = site.key_file.read_bytes()
    site.run("key", "rotate", "certificate")
    (site.tree / "b").write_text("b")
    site.run("capture")
    return stolen


def host_of(site: Site) -> str:
    return json.loads(next(site.vault.glob("w/*/cert-0000.json")).read_text())["body"]["host"]


def test_a_revoked_signing_key_signs_nothing_more_that_is_believed(site: Site) -> None:
    stolen = rotated(site)
    told = site.facts("key", "revoke", "--writer", host_of(site))
    assert told["certificate"] == 2
    assert "1 signing key of" in told["done"]
    assert site.facts("verify", "--level", "full")["sound"], "what it signed before stays good"
    assert site.names() == ["a", "b"]
    mine = site.key_file.read_bytes()
    site.key_file.write_bytes(stolen)  # whoever copied it writes in our name
    (site.tree / "forged").write_text("forged")
    site.run("capture")
    site.key_file.write_bytes(mine)
    found = site.facts("verify", code="integrity")
    assert any("revoked by then" in one["what"] for one in found["damage"])
    shown = site.run("ls", f"web:{site.tree}", code="any")
    assert "forged" not in shown


def test_without_the_revocation_a_stolen_key_would_be_believed(site: Site) -> None:
    """What the test above relies on."""
    stolen = rotated(site)
    mine = site.key_file.read_bytes()
    site.key_file.write_bytes(stolen)
    (site.tree / "forged").write_text("forged")
    site.run("capture")
    site.key_file.write_bytes(mine)
    assert site.facts("verify")["sound"]
    assert "forged" in site.names()


def test_a_key_that_was_stolen_before_its_rotation_is_revoked_from_then(site: Site) -> None:
    rotated(site)
    site.run("key", "revoke", "--writer", host_of(site), "--from", "-1h")
    found = site.facts("verify", code="integrity")
    assert any("revoked by then" in one["what"] for one in found["damage"])
    again = site.facts("key", "revoke", "--writer", host_of(site))
    assert again["certificate"] == 0, "a revocation is never weakened"
    assert site.slug("ls", "web", code="integrity") == "vault-damaged"
    shutil.rmtree(site.state)  # begin again with what is still believed
    site.run("capture")
    with closing(sqlite3.connect(site.state / FILE_NAME)) as catalog:
        wanted = catalog.execute("SELECT value FROM meta WHERE key = ?", (CHECKPOINT_WANTED,))
        assert wanted.fetchone() == (1,), "the daemon will put a checkpoint behind the break"


def test_the_key_in_use_is_not_revoked_by_mistake(site: Site) -> None:
    host = host_of(site)
    assert site.slug("key", "revoke", "--writer", host, code="usage") == "usage-invalid"
    assert site.slug("key", "revoke", "--writer", host, "--keys", "all", code="usage")
    assert site.slug("key", "revoke", "--writer", "nobody", code="missing") == "not-found"
    assert site.slug("key", "revoke", code="usage") == "usage-invalid"
    assert site.slug("key", "revoke", "abc", "--writer", host, code="usage") == "usage-invalid"
    future = ("--from", "2999-01-01")
    assert site.slug("key", "revoke", "--writer", host, *future, code="usage") == "usage-invalid"
    site.run("capture")
    assert site.facts("verify")["sound"]


# -- roles -----------------------------------------------------------------------------------------


@pytest.fixture
def write_only(site: Site) -> Site:
    told = site.run("key", "host-role", "write-only", "--kit", str(site.kit))
    assert "move them away" in told, "the kit of this test is on the disk of the host"
    return site


@pytest.mark.parametrize(
    "command",
    [
        ["points"],
        ["ls", "web"],
        ["find", "web", "*"],
        ["history", "web:a"],
        ["diff", "web", "-1h", "now"],
        ["cat", "web:a"],
        ["restore", "web", "--to", "/nonexistent/x"],
        ["verify"],
        ["verify", "--level", "full"],
        ["retention", "plan"],
        ["retention", "run"],
        ["key", "rotate", "pair"],
        ["key", "add", "--key-file", "x.key"],
    ],
    ids=" ".join,
)
def test_a_write_only_host_says_one_thing_to_who_wants_to_read(
    write_only: Site, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_only.root)
    error = write_only.facts(*command, code="refused")["error"]
    assert error["code"] == "host-write-only"
    assert "--kit" in error["remedy"]


def test_a_write_only_host_goes_on_capturing_and_the_kit_reads_it(write_only: Site) -> None:
    site = write_only
    assert host_key(site).private is None
    packs = site.objects("p/")
    (site.tree / "b").write_text("content of b")
    (site.tree / "copy").write_text("content of a")
    site.run("capture")
    site.run("capture")
    assert site.names("--kit", str(site.kit)) == ["a", "b", "copy"]
    assert site.facts("verify", "--level", "full", "--kit", str(site.kit))["sound"]
    assert len(site.objects("p/") - packs) <= 1
    site.run("retention", "run", "--kit", str(site.kit))
    site.run("key", "host-role", "full", "--kit", str(site.kit))
    assert site.names() == ["a", "b", "copy"]


def test_the_role_is_only_taken_when_the_kit_is_proven(site: Site) -> None:
    assert site.slug("key", "host-role", "write-only", code="usage") == "usage-invalid"
    damaged = site.secret("damaged", site.kit.read_text()[:600])
    site.slug("key", "host-role", "write-only", "--kit", damaged, code="config")
    slot = site.facts("key", "list")["slots"][0]["id"]
    site.run("key", "add", "--passphrase-file", site.secret("phrase", PASSPHRASE))
    site.run("key", "revoke", slot)
    told = site.slug("key", "host-role", "write-only", "--kit", str(site.kit), code="policy")
    assert told == "keys-changed"
    assert host_key(site).is_full


def test_a_write_only_host_follows_new_key_pairs(write_only: Site) -> None:
    site = write_only
    site.run("key", "rotate", "pair", "--kit", str(site.kit))
    assert host_key(site).private is None
    assert host_key(site).public.generation == 2
    (site.tree / "b").write_text("content of b")
    site.run("capture")
    assert site.names("--kit", str(site.kit)) == ["a", "b"]


@pytest.mark.parametrize("lose", ["state", "catalog"])
def test_a_write_only_host_that_lost_its_state_goes_on_without_storing_again(
    write_only: Site, lose: str
) -> None:
    site = write_only
    (site.tree / "a").write_bytes(os.urandom(3_000_000))
    (site.tree / "gone").write_text("deleted while nobody remembered")
    site.run("capture")
    stored = sum((site.vault / name).stat().st_size for name in site.objects("") if "/p/" in name)
    for path in sorted(site.state.rglob("*" if lose == "state" else "catalog*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (site.tree / "gone").unlink()
    (site.tree / "late").write_text("late")
    site.run("capture")
    again = sum((site.vault / name).stat().st_size for name in site.objects("") if "/p/" in name)
    assert again - stored < 100_000, "content was found to be in the vault"
    kit = ("--kit", str(site.kit))
    assert site.names(*kit) == ["a", "late"]
    assert site.facts("verify", "--level", "full", *kit)["sound"]
    gaps = [gap for each in site.facts("points", *kit)["sources"] for gap in each["gaps"]]
    assert gaps, "what happened in between may have been missed"
    assert "gone" in site.run("find", "web", "gone", "--all-versions", *kit), (
        "the past stays readable"
    )
    (site.tree / "late").write_text("changed")
    site.run("capture")
    site.run("retention", "run", *kit)
    assert site.facts("verify", "--level", "full", *kit)["sound"]
    assert "changed" in site.run("cat", "web:late", *kit)


# -- secrets ---------------------------------------------------------------------------------------


def test_no_secret_is_ever_printed(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMD_DEBUG", "1")
    phrase = site.secret("phrase", PASSPHRASE)
    site.run("key", "add", "--passphrase-file", phrase)
    site.run("key", "list")
    site.run("key", "test", "--kit", str(site.kit))
    site.run("key", "rotate", "pair")
    site.run("ls", "web", "--passphrase-file", phrase, "--vault", f"file://{site.vault}")

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("somebody's mistake")

    monkeypatch.setattr("streamd.daemon.unlocking.unlock", fail)
    assert main(["ls", "web", "--passphrase-file", phrase, "-c", str(site.config)]) == 1
    site.run("config", "show")
    code = decode_kit(site.kit.read_bytes()).code
    secrets = [PASSPHRASE, code, code.replace("-", "")]
    fields = json.loads(site.key_file.read_text())
    secrets += [fields["signing_key"], fields["domain_secret"], fields["private"]["admin"]]
    assert [secret for secret in secrets if secret in site.said] == []
    host = host_key(site)
    assert host.signing_key.hex() not in site.said


# -- several hosts ---------------------------------------------------------------------------------


@pytest.fixture
def second(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """A second host in the vault of the first."""
    (tmp_path / "second").mkdir()
    made = Site(tmp_path / "second", capsys)
    made.config.write_text(made.config.read_text().replace(str(made.vault), str(site.vault)))
    made.vault, made.kit = site.vault, site.kit
    (made.tree / "of-the-second").write_text("content of the second host")
    monkeypatch.setattr("streamd.cli.context.host_name", lambda: "second.example")
    assert made.facts("init", "--join", "--kit", str(site.kit))["role"] == "write-only"
    made.run("capture")
    return made


def test_a_second_host_joins_with_a_journal_and_a_secret_of_its_own(
    site: Site, second: Site
) -> None:
    kit = ("--kit", str(site.kit))
    assert host_key(second).domain_secret != host_key(site).domain_secret
    assert site.names() == ["a"], "the first host goes on with its own"
    assert second.names(*kit) == ["a", "of-the-second"], "the key file says whose history"
    told = site.facts("ls", "web", *kit, code="missing", config=False)["error"]
    assert "second.example" in told["message"]
    assert second.names(*kit, "--host", "second.example", config=False) == ["a", "of-the-second"]
    for one in (site, second):
        (one.tree / "more").write_text("more")
        one.run("capture")
        found = one.facts("verify", "--level", "full", *kit)
        assert (found["sound"], found["strangers"]) == (True, [])
    second.run("retention", "run", *kit)
    site.run("retention", "run")
    assert site.facts("key", "test", *kit)["hosts"] == 2
    assert site.slug("key", "rotate", "pair", code="policy") == "keys-changed"
    site.run("key", "rotate", "pair", *kit)
    second.run("capture")
    assert site.names() == ["a", "more"]


def test_joining_twice_is_refused_and_a_kit_is_needed(site: Site, second: Site) -> None:
    again = second.slug("init", "--join", "--kit", str(site.kit), code="config")
    assert again == "key-file-invalid"
    assert second.slug("init", "--join", code="usage") == "usage-invalid"


def test_a_join_that_died_half_way_is_repeated(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "third").mkdir()
    third = Site(tmp_path / "third", capsys)
    third.config.write_text(third.config.read_text().replace(str(third.vault), str(site.vault)))
    publish = keyholder.publish

    async def dies(*_: object, **__: object) -> None:
        raise VaultUnreachable("cut off", url="x")

    monkeypatch.setattr(keyholder, "publish", dies)
    third.slug("init", "--join", "--kit", str(site.kit), code="unreachable")
    first = host_key(third)
    monkeypatch.setattr(keyholder, "publish", publish)
    third.facts("init", "--join", "--kit", str(site.kit))
    assert host_key(third).writer == first.writer
    third.run("capture")


def test_a_host_that_is_gone_writes_nothing_more_that_is_believed(site: Site, second: Site) -> None:
    kit = ("--kit", str(site.kit))
    gone = ("key", "revoke", "--writer", "second.example", "--keys", "all", *kit)
    assert site.facts(*gone)["certificate"] == 1
    assert second.names(*kit) == ["a", "of-the-second"], "its past stays"
    (second.tree / "later").write_text("later")
    second.run("capture")
    found = second.facts("verify", *kit, code="integrity")
    assert any("revoked by then" in one["what"] for one in found["damage"])
    assert site.facts("verify")["sound"], "the others are not concerned"
