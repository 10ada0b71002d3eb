"""Slots of every kind, the recovery kit, and what follows a rotation."""

import json
from unittest import mock

import msgspec
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from golden import keyring
from golden.keyring import KEM, SECRETS
from golden.materials import (
    ADMIN_PUBLIC,
    KEK,
    RECOVERY_CODE,
    SIGNER,
    SIGNING_KEY,
    VAULT,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    host_key,
    key_chain,
    recorded_session,
)
from golden.specimens import specimens
from stretching import real_stretching

from streamd.errors import (
    FormatUnsupported,
    HostWriteOnly,
    KeyRejected,
    KitInvalid,
    SecretUnusable,
    VaultDamaged,
)
from streamd.format import crypto, envelope, layout, ring, slots, vault_config
from streamd.format.crypto import Kem
from streamd.format.envelope import CertifiedKey, Header, Kind
from streamd.format.keys import KeyChain, Role
from streamd.format.kit import Kit, decode_kit, encode_kit
from streamd.format.slots import Secret, SlotKind, Stretcher, decode_slot, open_slot, seal_slot
from streamd.format.vault_config import PublicKeys, VaultConfig, decode_signed, public_ring

EDITION = 7


def made(kind: SlotKind, kem: Kem = KEM) -> tuple[Secret, bytes]:
    secret = Secret(kind, SECRETS[kind])
    slot_id, slot = slots.new_slot_key(
        secret, kem, label="desk", created="2026-01-01T00:00:00Z", entropy=CountedEntropy()
    )
    return secret, seal_slot(VAULT, kem, slot_id, slot, EDITION, KEK)


@pytest.mark.parametrize("kind", list(SlotKind))
@pytest.mark.parametrize("kem", list(Kem))
def test_a_slot_of_every_kind_opens_with_its_secret_and_no_other(kind: SlotKind, kem: Kem) -> None:
    secret, data = made(kind, kem)
    slot = decode_slot(data, VAULT)
    assert (slot.label, slot.edition, slot.kem, slot.wrapped) == ("desk", EDITION, kem, b"")
    assert open_slot(slot, Stretcher(secret)) == KEK
    with pytest.raises(KeyRejected, match=f"the {kind} does not open"):
        open_slot(slot, Stretcher(Secret(kind, fixed("other", 40).hex().encode())))


@pytest.mark.slow
def test_outside_of_tests_a_guess_at_a_secret_costs_a_quarter_of_a_gib() -> None:
    with real_stretching():
        secret, data = made(SlotKind.PASSPHRASE)
    slot = decode_slot(data, VAULT)
    assert (slot.iterations, slot.lanes, slot.memory_kib) == (3, 4, 256 * 1024)
    assert open_slot(slot, Stretcher(secret)) == KEK, "its cost is read from the slot"


@pytest.mark.parametrize("field", ["kind", "id", "label", "created"])
def test_nothing_in_a_slot_can_be_changed(field: str) -> None:
    secret, data = made(SlotKind.PASSPHRASE)
    changed = json.loads(data) | {field: "key-file"}
    with pytest.raises(KeyRejected):
        open_slot(decode_slot(json.dumps(changed).encode(), VAULT), Stretcher(secret))


def test_a_passphrase_opens_however_its_letters_are_composed() -> None:
    _, data = made(SlotKind.PASSPHRASE)
    decomposed = Secret(SlotKind.PASSPHRASE, "Gru\u0308ße aus dem Tresor".encode())
    assert open_slot(decode_slot(data, VAULT), Stretcher(decomposed)) == KEK


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (SlotKind.PASSPHRASE, b"too short", "at least 12"),
        (SlotKind.PASSPHRASE, b"\xff" * 20, "not UTF-8"),
        (SlotKind.KEY_FILE, bytes(31), "32 to"),
        (SlotKind.KEY_FILE, bytes(65_537), "32 to"),
        (SlotKind.RECOVERY_CODE, b"\xff", "not UTF-8"),
    ],
)
def test_a_secret_that_protects_nothing_is_refused(kind: SlotKind, value: bytes, why: str) -> None:
    with pytest.raises(SecretUnusable, match=why):
        slots.check_new_secret(Secret(kind, value))
    assert value.decode("latin-1") not in repr(Secret(kind, value))


def test_one_secret_is_stretched_once_for_each_set_of_parameters() -> None:
    secret, data = made(SlotKind.KEY_FILE)
    stretcher = Stretcher(secret)
    slot = decode_slot(data, VAULT)
    assert [open_slot(slot, stretcher) for _ in range(3)] == [KEK] * 3
    assert stretcher.count == 1


def test_an_old_slot_goes_on_in_the_next_ring_with_the_same_secret() -> None:
    old = decode_slot(keyring.old_slot()[1], VAULT)
    stretcher = Stretcher(Secret(SlotKind.RECOVERY_CODE, RECOVERY_CODE.encode()))
    assert open_slot(old, stretcher) == KEK
    slot = slots.upgraded(old, stretcher, KEM)
    sealed = decode_slot(seal_slot(VAULT, KEM, "id", slot, 2, fixed("next")), VAULT)
    assert open_slot(sealed, stretcher) == fixed("next")


def test_slot_objects_have_names_of_their_own() -> None:
    entropy = CountedEntropy()
    names = {slots.slot_object_name(entropy) for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith(layout.SLOT_PREFIX) for name in names)


def test_a_ring_of_another_vault_is_refused_and_its_name_says_its_edition() -> None:
    specimen = specimens()["ring-2.bin"]
    content = ring.decode_ring(specimen.data, keyring.KEK_2, vault=VAULT)
    assert content.private.edition == layout.parse_ring_name(specimen.name) == 2
    with pytest.raises(VaultDamaged, match="another vault"):
        ring.decode_ring(specimen.data, keyring.KEK_2, vault=fixed("other", 16))


@pytest.mark.parametrize("name", ["k/slot-aaaa", "k/ring-zzzz-aaaaaaaaaaaaa", "k/ring-0001-a", "x"])
def test_what_is_no_ring_s_name_is_none(name: str) -> None:
    assert layout.parse_ring_name(name) is None


# -- the kit ---------------------------------------------------------------------------------------

KIT = Kit(
    vault=VAULT,
    url="file:///srv/vault",
    admin=ADMIN_PUBLIC,
    slot_id="abc",
    code=RECOVERY_CODE,
    created="2026-01-01T00:00:00Z",
    slot=b"slot",
    ring=bytes(range(256)),
)


@pytest.mark.parametrize("kit", [KIT, msgspec.structs.replace(KIT, code="")])
def test_a_kit_comes_back_from_its_text(kit: Kit) -> None:
    data = encode_kit(kit)
    assert decode_kit(data) == kit
    assert decode_kit(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")) == kit
    assert (b"IS IN THIS FILE" in data) == bool(kit.code)
    assert RECOVERY_CODE not in repr(kit)


def test_a_kit_typed_from_paper_is_enough() -> None:
    lines = encode_kit(KIT).decode().splitlines()
    typed = [line for line in lines if line.startswith(("format:", "vault:", "url:"))]
    kit = decode_kit("\n".join(typed).encode())
    assert (kit.vault, kit.url, kit.admin, kit.slot, kit.ring) == (VAULT, KIT.url, b"", b"", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"format: 1\n",
        b"format: 2\n",
        b"format: 1\nvault: 8\n",
        b"\xff",
        encode_kit(KIT).replace(b"url: ", b"url: x\nurl: "),
        encode_kit(KIT)[:-20],
        encode_kit(KIT).replace(b"SLOT-----\n", b"SLOT-----\n!", 1),
    ],
)
def test_what_is_no_kit_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(KitInvalid):
        decode_kit(data)


# -- rotation --------------------------------------------------------------------------------------


def config() -> VaultConfig:
    return decode_signed(specimens()["config-1.json"].data, ADMIN_PUBLIC, VaultConfig)


def test_hosts_follow_the_configuration_to_newer_keys_only() -> None:
    pinned = host_key().public
    shown = public_ring(config(), pinned)
    assert (shown.generation, shown.admin) == (2, pinned.admin)
    assert public_ring(config(), shown) is shown
    without = msgspec.structs.replace(config(), public=None)
    assert public_ring(without, pinned) is pinned


@pytest.mark.parametrize(
    "change", [{"meta": "zz"}, {"data": "00"}, {"kem": 9}, {"kem": 1, "meta": "00" * 32}]
)
def test_public_keys_that_cannot_be_ones_are_damage(change: dict[str, object]) -> None:
    shown = config().public
    assert isinstance(shown, PublicKeys)
    broken = msgspec.structs.replace(config(), public=msgspec.structs.replace(shown, **change))
    with pytest.raises((VaultDamaged, FormatUnsupported)):
        public_ring(broken, host_key().public)


def test_a_document_can_be_read_before_its_key_is_known() -> None:
    data = specimens()["config-1.json"].data
    assert vault_config.decode_unsigned(data, VaultConfig) == config()


def test_a_chain_of_keys_follows_forward_and_forgets_what_it_may_not_read() -> None:
    chain, content = KeyChain(host_key()), keyring.content_2()
    chain.follow(content.public)
    assert chain.public.generation == 2
    chain.follow(host_key().public)
    assert chain.public.generation == 2
    source = recorded_session("data").source
    assert chain.secret_for(source) == recorded_session("data").secret
    chain.adopt(host_key(full=False))
    with pytest.raises(HostWriteOnly):
        chain.secret_for(source)
    chain.adopt(msgspec.structs.replace(host_key(), public=content.public, private=content.private))
    assert chain.secret_for(source) == recorded_session("data").secret


def test_lent_keys_open_one_role_and_not_the_other() -> None:
    chain = key_chain(full=False)
    private = host_key().private
    assert private is not None
    chain.lend(Role.META, private.meta)
    assert chain.secret_for(recorded_session("meta").source) == recorded_session("meta").secret
    with pytest.raises(KeyRejected):
        chain.secret_for(recorded_session("data").source)


def test_a_generation_that_the_key_file_lacks_is_not_a_write_only_host() -> None:
    source = msgspec.structs.replace(recorded_session("data").source, generation=9)
    with pytest.raises(KeyRejected) as caught:
        key_chain().secret_for(source)
    assert not isinstance(caught.value, HostWriteOnly)


def signed_at(at_us: int) -> bytes:
    header = Header(v=VAULT, d=b"", w=b"", t=at_us)
    built = envelope.build(
        Kind.EPOCH, header, [], secrets={}, entropy=CountedEntropy(), signer=SIGNER
    )
    return bytes(built)


def test_what_an_earlier_key_signed_stays_good_until_it_was_revoked() -> None:
    new = CertifiedKey(crypto.verify_key_of(keyring.SIGNING_KEY_2))
    good = (new, CertifiedKey(WRITER_PUBLIC))
    assert envelope.verify_signature(signed_at(10), good)
    revoked = (new, CertifiedKey(WRITER_PUBLIC, revoked_from_us=10))
    assert envelope.verify_signature(signed_at(9), revoked)
    with pytest.raises(VaultDamaged, match="revoked"):
        envelope.verify_signature(signed_at(10), revoked)
    with pytest.raises(VaultDamaged, match="not signed by its writer"):
        envelope.verify_signature(signed_at(9), (new,))
    assert crypto.verify_key_of(SIGNING_KEY) == WRITER_PUBLIC


def test_a_library_without_the_lattice_seals_with_the_curve_and_says_what_it_lacks() -> None:
    assert crypto.best_kem() is Kem.MLKEM768_X25519
    crypto.check_kem(Kem.MLKEM768_X25519)
    lacking = mock.Mock(side_effect=UnsupportedAlgorithm("no ML-KEM"))
    with mock.patch.object(crypto, "_private_lattice", lacking):
        assert crypto.best_kem() is Kem.X25519
        with pytest.raises(FormatUnsupported, match="mlkem768-x25519"):
            crypto.check_kem(Kem.MLKEM768_X25519)
        data = specimens()["slot-passphrase.json"].data
        secret = Secret(SlotKind.PASSPHRASE, SECRETS[SlotKind.PASSPHRASE])
        with pytest.raises(FormatUnsupported):
            open_slot(decode_slot(data, VAULT), Stretcher(secret))
