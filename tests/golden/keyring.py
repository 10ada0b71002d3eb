"""Specimens of the key ring's second edition: every kind of slot, the kit, and signed documents.

What HPKE drew for a slot cannot be drawn again: a slot's own vector keeps it.
"""

import base64
import json
from collections.abc import Iterator

import msgspec
from golden.materials import (
    ADMIN,
    ADMIN_KEY,
    ADMIN_PUBLIC,
    CREATED_US,
    DOMAIN,
    DOMAIN_SECRET,
    KEK,
    RECOVERY_CODE,
    VAULT,
    VECTORS,
    WRITER,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    private_key,
)
from stretching import cheap_stretching

from streamd.format import crypto, layout, ring, slots
from streamd.format.crypto import Kem
from streamd.format.keys import PrivateRing, PublicRing, SlotKey
from streamd.format.kit import Kit, decode_kit, encode_kit
from streamd.format.ring import RingContent
from streamd.format.slots import Secret, Slot, SlotKind, Stretcher, decode_slot, open_slot
from streamd.format.vault_config import (
    Certificate,
    Features,
    Suite,
    VaultConfig,
    encode_signed,
    published,
)
from streamd.model.ids import to_text

KEM = Kem.MLKEM768_X25519
KEK_2 = fixed("key encryption key 2")
CREATED = "2026-01-02T00:00:00Z"
SIGNING_KEY_2 = fixed("writer signing key 2")
SECRETS = {
    SlotKind.RECOVERY_CODE: RECOVERY_CODE.encode(),
    SlotKind.PASSPHRASE: "Grüße aus dem Tresor".encode(),
    SlotKind.KEY_FILE: fixed("slot key file", 48),
}
SLOT_FILES = {
    SlotKind.RECOVERY_CODE: "slot-recovery-code.json",
    SlotKind.PASSPHRASE: "slot-passphrase.json",
    SlotKind.KEY_FILE: "slot-key-file.json",
}


def old_slot() -> tuple[str, bytes]:
    """Return a slot as it was before there were sealed ones: readers open it for ever."""
    entropy = CountedEntropy("slot")
    slot = Slot(
        kind="recovery-code",
        vault=VAULT,
        kdf="argon2id",
        iterations=1,
        lanes=1,
        memory_kib=64,
        salt=entropy.token(16),
    )
    secret = Secret(SlotKind.RECOVERY_CODE, RECOVERY_CODE.encode())
    cipher = crypto.cipher_for(Stretcher(secret).key_for(slot))
    aad = b"streamd/v1/slot|" + VAULT + b"recovery-code"
    slot = msgspec.structs.replace(slot, wrapped=bytes(crypto.encrypt(cipher, 0, KEK, aad)))
    return layout.slot_name(entropy.token(8)), msgspec.json.format(
        msgspec.json.encode(slot), indent=2
    ) + b"\n"


def read_slot(data: bytes) -> object:
    """Say what opens it and what is in it."""
    slot = decode_slot(data, VAULT)
    kind = SlotKind(slot.kind) if slot.kind in set(SlotKind) else SlotKind.RECOVERY_CODE
    kek = open_slot(slot, Stretcher(Secret(kind, SECRETS[kind])))
    return {"kek": kek.hex()}


def read_kit(data: bytes) -> object:
    """Say what a kit says, and what its ring holds."""
    kit = decode_kit(data)
    kek = open_slot(
        decode_slot(kit.slot, kit.vault),
        Stretcher(Secret(SlotKind.RECOVERY_CODE, (kit.code or RECOVERY_CODE).encode())),
    )
    content = ring.decode_ring(kit.ring, kek, vault=kit.vault)
    return {
        "vault": to_text(kit.vault),
        "url": kit.url,
        "admin": to_text(kit.admin),
        "slot": kit.slot_id,
        "code": kit.code,
        "created": kit.created,
        "edition": content.private.edition,
        "generations": sorted(content.private.meta),
    }


def slot_keys() -> dict[str, SlotKey]:
    """Return the ring's three slots by id."""
    found = {}
    with cheap_stretching():
        for kind, secret in SECRETS.items():
            slot_id, slot = slots.new_slot_key(
                Secret(kind, secret),
                KEM,
                label=f"vector {kind}",
                created=CREATED,
                entropy=CountedEntropy(f"slot {kind}"),
            )
            found[slot_id] = slot
    return found


def content_2() -> RingContent:
    """Return the ring after a rotation of the key pairs, with three slots."""
    pairs = {
        role: {1: private_key(KEM, role), 2: private_key(KEM, f"{role} 2")}
        for role in ("META", "DATA")
    }
    private = PrivateRing(
        kem=KEM,
        meta=pairs["META"],
        data=pairs["DATA"],
        admin=ADMIN_KEY,
        domains={to_text(DOMAIN): DOMAIN_SECRET},
        edition=2,
        slots=slot_keys(),
    )
    public = PublicRing(
        kem=KEM,
        generation=2,
        meta=crypto.public_of(KEM, pairs["META"][2]),
        data=crypto.public_of(KEM, pairs["DATA"][2]),
        admin=ADMIN_PUBLIC,
    )
    return RingContent(private=private, public=public)


def _slot(slot_id: str, slot: SlotKey) -> bytes:
    file = VECTORS / SLOT_FILES[SlotKind(slot.kind)]
    made = slots.seal_slot(VAULT, KEM, slot_id, slot, 2, KEK_2)
    if not file.exists():
        return made
    sealed = base64.b64decode(json.loads(file.read_bytes())["sealed"])
    kept = msgspec.structs.replace(decode_slot(made, VAULT), sealed=sealed)
    return msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"


def _certificate(number: int, public: bytes, revoked_from_us: int = 0) -> bytes:
    certificate = Certificate(
        vault=to_text(VAULT),
        domain=to_text(DOMAIN),
        writer=to_text(WRITER),
        number=number,
        public=public.hex(),
        host="vector.example",
        created=CREATED,
        revoked_from_us=revoked_from_us,
    )
    return encode_signed(certificate, ADMIN_KEY)


def key_specimens() -> Iterator[tuple[str, str, str, bytes]]:
    """Yield file, reader, object name and bytes of everything about keys that was added."""
    content = content_2()
    sealed = ring.encode_ring(
        content,
        KEK_2,
        vault=VAULT,
        now_us=CREATED_US,
        signer=ADMIN,
        entropy=CountedEntropy("ring 2"),
    )
    yield "ring-2.bin", "ring-2", sealed.name, bytes(sealed.data)
    made: dict[str, bytes] = {}
    for slot_id, slot in content.private.slots.items():
        kind = SlotKind(slot.kind)
        made[kind] = _slot(slot_id, slot)
        name = layout.slot_name(fixed(f"slot object {kind}", 8))
        yield SLOT_FILES[kind], "slot", name, made[kind]
    code_id = next(i for i, s in content.private.slots.items() if s.kind == "recovery-code")
    for file, code in (("kit-code-inside.txt", RECOVERY_CODE), ("kit-code-apart.txt", "")):
        kit = Kit(
            vault=VAULT,
            url="https://example.blob.core.windows.net/vault/prefix",
            admin=ADMIN_PUBLIC,
            slot_id=code_id,
            code=code,
            created=CREATED,
            slot=made[SlotKind.RECOVERY_CODE],
            ring=bytes(sealed.data),
        )
        yield file, "kit", "", encode_kit(kit)
    public_2 = crypto.verify_key_of(SIGNING_KEY_2)
    config = VaultConfig(
        format="streamd-vault",
        major=1,
        id=to_text(VAULT),
        created="2026-01-01T00:00:00Z",
        number=1,
        suite=Suite(),
        features=Features(),
        domains={to_text(DOMAIN): (to_text(WRITER),)},
        admin_public=ADMIN_PUBLIC.hex(),
        specification="docs/format.md",
        public=published(content.public),
        ring=sealed.name,
    )
    yield "config-1.json", "config", layout.config_name(1), encode_signed(config, ADMIN_KEY)
    for number, public, revoked_us in ((1, public_2, 0), (2, WRITER_PUBLIC, CREATED_US + 5)):
        data = _certificate(number, public, revoked_us)
        name = layout.certificate_name(WRITER, number)
        yield f"certificate-{number}.json", "certificate", name, data


def invalid_keys(made: dict[str, bytes]) -> Iterator[tuple[str, str, bytes, str, str]]:
    """Yield label, reader, bytes, error and reason of kits and slots that must be refused."""
    slot = json.loads(made["slot-passphrase.json"])
    for label, change, error, why in (
        ("slot-edition", {"edition": 3}, "KeyRejected", "a slot moved to another ring"),
        ("slot-edition-range", {"edition": 2**32}, "VaultDamaged", "an impossible edition"),
        ("slot-kem", {"kem": 9}, "FormatUnsupported", "a slot sealed with an unknown KEM"),
    ):
        yield label, "slot", json.dumps(slot | change, indent=2).encode() + b"\n", error, why
    kit = made["kit-code-inside.txt"]
    for label, data, why in (
        ("kit-format", kit.replace(b"format: 1", b"format: 2"), "a kit of another format"),
        ("kit-none", b"vault: x\n", "a text that is no kit"),
        ("kit-cut", kit[:-40], "a kit that is cut off inside the ring"),
        ("kit-vault", kit.replace(b"vault: ", b"vault: 1"), "an id that is not base32"),
        ("kit-admin", kit.replace(b"admin: ", b"admin: aa"), "an admin key of the wrong size"),
        ("kit-twice", kit.replace(b"url: ", b"url: file:///x\nurl: "), "a line that occurs twice"),
        ("kit-base64", kit.replace(b"SLOT-----\n", b"SLOT-----\n!", 1), "a block not in base64"),
        ("kit-binary", b"\xff\xfe" + kit, "a kit that is not UTF-8"),
    ):
        yield label, "kit", data, "KitInvalid", why
