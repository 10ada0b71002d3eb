"""The key ring, its slots, and signed documents."""

import json

import msgspec
import pytest
from golden.keyring import old_slot
from golden.materials import (
    ADMIN,
    ADMIN_KEY,
    ADMIN_PUBLIC,
    CREATED_US,
    KEK,
    RECOVERY_CODE,
    SIGNER,
    VAULT,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    host_key,
)

from streamd.errors import FormatUnsupported, KeyRejected, VaultDamaged
from streamd.format import envelope, slots, vault_config
from streamd.format.envelope import Header, Kind, SectionDraft
from streamd.format.keys import KeySource, Role
from streamd.format.ring import RingContent, decode_ring, encode_ring
from streamd.format.slots import Secret, SlotKind, Stretcher, decode_slot
from streamd.format.vault_config import (
    Certificate,
    Features,
    Suite,
    VaultConfig,
    check_supported,
    decode_signed,
    encode_signed,
)

HOST = host_key()
CONTENT = RingContent(private=HOST.private, public=HOST.public)


def slot_data() -> bytes:
    return old_slot()[1]


def open_slot(data: bytes, vault: bytes, code: str) -> bytes:
    secret = Secret(SlotKind.RECOVERY_CODE, code.encode())
    return slots.open_slot(decode_slot(data, vault), Stretcher(secret))


def changed_slot(**change: object) -> bytes:
    return json.dumps(json.loads(slot_data()) | change).encode()


def test_a_recovery_code_is_160_bits_for_people() -> None:
    code = slots.new_recovery_code(CountedEntropy())
    assert [len(group) for group in code.split("-")] == [4] * 8
    assert code == code.upper()
    assert code != slots.new_recovery_code(CountedEntropy("other"))


@pytest.mark.parametrize("spell", [str, str.lower, lambda code: code.replace("-", " ")])
def test_a_slot_opens_with_its_code_however_it_is_typed(spell) -> None:
    assert open_slot(slot_data(), VAULT, spell(RECOVERY_CODE)) == KEK


@pytest.mark.parametrize("code", ["", "A" + RECOVERY_CODE[1:], RECOVERY_CODE[:-1], "ß\u0131"])
def test_another_code_is_rejected(code: str) -> None:
    with pytest.raises(KeyRejected, match="does not open"):
        open_slot(slot_data(), VAULT, code)


@pytest.mark.parametrize(
    "change",
    [
        {"kdf": "scrypt"},
        {"memory_kib": 2**20 + 1},
        {"memory_kib": 7},
        {"memory_kib": 64, "lanes": 9},
        {"memory_kib": -1},
        {"iterations": 17},
        {"iterations": 0},
        {"iterations": 2**70},
        {"lanes": 0},
        {"lanes": -1},
        {"lanes": 65, "memory_kib": 2**20},
        {"lanes": 2**40},
        {"salt": "AAAA"},
    ],
)
def test_a_hostile_slot_costs_nothing(change: dict[str, object]) -> None:
    with pytest.raises(VaultDamaged, match="impossible"):
        open_slot(changed_slot(**change), VAULT, RECOVERY_CODE)


@pytest.mark.parametrize("change", [{"kind": "passphrase"}, {"wrapped": ""}, {"iterations": 2}])
def test_a_changed_slot_does_not_open(change: dict[str, object]) -> None:
    with pytest.raises(KeyRejected):
        open_slot(changed_slot(**change), VAULT, RECOVERY_CODE)


def test_a_slot_of_another_vault_is_refused() -> None:
    with pytest.raises(VaultDamaged, match="another vault"):
        open_slot(slot_data(), fixed("another vault", 16), RECOVERY_CODE)
    other = fixed("another vault", 16)
    relabelled = changed_slot(vault=msgspec.to_builtins(other))
    with pytest.raises(KeyRejected):
        open_slot(relabelled, other, RECOVERY_CODE)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"kind":"\xff"}'])
def test_what_is_no_slot_is_damage(data: bytes) -> None:
    with pytest.raises(VaultDamaged, match="does not parse"):
        open_slot(data, VAULT, RECOVERY_CODE)


def test_a_field_added_to_a_slot_later_is_ignored() -> None:
    assert open_slot(changed_slot(later=[1]), VAULT, RECOVERY_CODE) == KEK


def ring_data(signer=ADMIN) -> bytes:
    return bytes(
        encode_ring(
            CONTENT,
            KEK,
            vault=VAULT,
            now_us=CREATED_US,
            signer=signer,
            entropy=CountedEntropy(),
        ).data
    )


def test_the_ring_opens_with_its_key_and_says_everything() -> None:
    assert decode_ring(ring_data(), KEK) == CONTENT
    with pytest.raises(VaultDamaged, match="authenticate"):
        decode_ring(ring_data(), fixed("another key"))


def test_two_rings_of_one_generation_have_different_names() -> None:
    entropy = CountedEntropy()
    names = {
        encode_ring(CONTENT, KEK, vault=VAULT, now_us=1, signer=ADMIN, entropy=entropy).name
        for _ in range(2)
    }
    assert len(names) == 2


def test_a_ring_not_signed_by_the_admin_it_names_is_refused() -> None:
    with pytest.raises(VaultDamaged, match="not signed"):
        decode_ring(ring_data(SIGNER), KEK)


def test_a_ring_that_does_not_parse_is_damage() -> None:
    header = Header(v=VAULT, d=b"", w=b"", t=1, ks=[KeySource(1, 0, Role.RING, 1, bytes(8), b"")])
    data = envelope.build(
        Kind.RING,
        header,
        [SectionDraft("k", (b"\x80",), 0)],
        secrets={0: KEK},
        entropy=CountedEntropy(),
        signer=ADMIN,
    )
    with pytest.raises(VaultDamaged, match="does not parse"):
        decode_ring(data, KEK)


# -- signed documents ----------------------------------------------------------------------------

CONFIG = VaultConfig(
    format=vault_config.FORMAT,
    major=1,
    id="v",
    created="2026-01-01T00:00:00Z",
    number=0,
    suite=Suite(),
    features=Features(),
    domains={"d": ("w",)},
    admin_public=ADMIN_PUBLIC.hex(),
    specification="docs/format.md",
)
CERTIFICATE = Certificate(
    vault="v",
    domain="d",
    writer="w",
    number=0,
    public=WRITER_PUBLIC.hex(),
    host="höst",
    created="2026-01-01T00:00:00Z",
)


@pytest.mark.parametrize("body", [CONFIG, CERTIFICATE])
def test_a_signed_document_comes_back_and_reads_as_json(body) -> None:
    data = encode_signed(body, ADMIN_KEY)
    assert decode_signed(data, ADMIN_PUBLIC, type(body)) == body
    assert json.loads(data)["body"] == json.loads(msgspec.json.encode(body))


def test_a_document_is_signed_as_it_stands_byte_by_byte() -> None:
    data = encode_signed(CONFIG, ADMIN_KEY)
    for damaged in (
        data.replace(b'"number": 0', b'"number": 1'),
        data.replace(b'"number": 0', b'"number":  0'),
        data.replace(b'"sig": "', b'"sig": "00'),
        encode_signed(CONFIG, fixed("another admin")),
    ):
        with pytest.raises(VaultDamaged):
            decode_signed(damaged, ADMIN_PUBLIC, VaultConfig)


def test_a_signature_has_one_spelling() -> None:
    data = encode_signed(CONFIG, ADMIN_KEY)
    head, sig = data.rsplit(b'"sig": "', 1)
    for other in (sig.upper(), sig[:2] + b" " + sig[2:], b"zz" + sig[2:], sig[2:]):
        with pytest.raises(VaultDamaged, match="the signature"):
            decode_signed(head + b'"sig": "' + other, ADMIN_PUBLIC, VaultConfig)


def test_a_certificate_cannot_pass_for_a_configuration() -> None:
    with pytest.raises(VaultDamaged, match="does not parse"):
        decode_signed(encode_signed(CERTIFICATE, ADMIN_KEY), ADMIN_PUBLIC, VaultConfig)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b'{"body": ' + b"[" * 100_000, b'{"body": {}, "sig": "\xff"}', b"[]"],
)
def test_what_is_no_signed_document_is_damage(data: bytes) -> None:
    with pytest.raises(VaultDamaged, match="does not parse"):
        decode_signed(data, ADMIN_PUBLIC, VaultConfig)


def test_a_field_added_to_a_document_later_is_ignored() -> None:
    raw = json.dumps(msgspec.to_builtins(CONFIG) | {"later": {}}).encode()
    signature = ADMIN.sign(b"streamd/v1/json|" + raw).hex().encode()
    data = b'{"sig":"' + signature + b'","body":' + raw + b"}"
    assert decode_signed(data, ADMIN_PUBLIC, VaultConfig) == CONFIG


def test_only_what_is_understood_is_done() -> None:
    check_supported(CONFIG, CONFIG.features.read)
    for config, features in (
        (CONFIG, ("tape",)),
        (msgspec.structs.replace(CONFIG, major=2), ()),
        (msgspec.structs.replace(CONFIG, format="borg"), ()),
    ):
        with pytest.raises(FormatUnsupported):
            check_supported(config, features)
