"""Key slots: what a person or a machine keeps, and how it opens the key ring.

A slot is a small JSON object beside the ring. Its secret (a passphrase, a key file, or a recovery
code of 160 random bits) is stretched with Argon2id; from the result follows a key pair, and to its
public half the key encryption key of the ring is sealed. The public half stands in the ring, so the
next ring can be sealed to every slot that stays, without their secrets.

Slots made before that hold the key encryption key under the stretched secret itself (`wrapped`).
"""

import base64
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from streamd.effects import Entropy
from streamd.errors import KeyRejected, SecretUnusable, VaultDamaged
from streamd.format import crypto, layout, wire
from streamd.format.crypto import Kem
from streamd.format.keys import SlotKey
from streamd.model.ids import to_text

CODE_SIZE: Final = 20  # bytes of a recovery code
_GROUP: Final = 4  # characters between dashes
ARGON_ITERATIONS: Final = 3
ARGON_LANES: Final = 4
ARGON_MEMORY_KIB: Final = 256 * 1024
ARGON_MEMORY_KIB_MAX: Final = 1024 * 1024  # refuse a hostile slot that asks for more
ARGON_ITERATIONS_MAX: Final = 16
ARGON_LANES_MAX: Final = 64
ARGON_SALT_MIN: Final = 8  # what the algorithm asks for; we write 16
_SALT_SIZE: Final = 16
SLOT_ID_SIZE: Final = 8
SLOT_SIZE_MAX: Final = 64 * 1024  # a slot object; ours are below 3 KiB
KDF: Final = "argon2id"
PASSPHRASE_LENGTH_MIN: Final = 12  # characters of a new one
KEY_FILE_SIZE_MIN: Final = 32
KEY_FILE_SIZE_MAX: Final = 65_536
_KEY_INFO: Final = b"streamd/v1/slot-key"
_EDITION_MAX: Final = 2**32 - 1


class SlotKind(StrEnum):
    """What opens a slot."""

    PASSPHRASE = "passphrase"  # noqa: S105 - a word, not a secret
    KEY_FILE = "key-file"
    RECOVERY_CODE = "recovery-code"


class Slot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wrapped key encryption key (JSON; byte fields are base64)."""

    kind: str
    vault: bytes
    kdf: str  # argon2id
    iterations: int
    lanes: int
    memory_kib: int
    salt: bytes
    wrapped: bytes = b""  # of slots made before there were `sealed` ones
    id: str = ""
    label: str = ""
    created: str = ""
    edition: int = 0  # of the ring that it opens
    kem: int = 0
    sealed: bytes = b""


class Secret(msgspec.Struct, frozen=True):
    """What somebody typed or a file holds, and which kind of slot it is meant for."""

    kind: SlotKind
    value: bytes

    def __repr__(self) -> str:
        """Show everything but the secret."""
        return f"Secret(kind={self.kind!r})"

    @property
    def normal(self) -> bytes:
        """The bytes that are stretched. Raises SecretUnusable if these can open nothing."""
        if self.kind is SlotKind.KEY_FILE:
            if not KEY_FILE_SIZE_MIN <= len(self.value) <= KEY_FILE_SIZE_MAX:
                raise SecretUnusable(
                    f"a key file has {KEY_FILE_SIZE_MIN} to {KEY_FILE_SIZE_MAX} bytes"
                )
            return self.value
        try:
            text = self.value.decode("utf-8")
        except UnicodeDecodeError:
            raise SecretUnusable(f"the {self.kind} is not UTF-8 text") from None
        if self.kind is SlotKind.PASSPHRASE:
            import unicodedata

            return unicodedata.normalize("NFC", text).encode()
        return text.replace("-", "").replace(" ", "").upper().encode()


class Stretcher:
    """Stretches one secret; remembers the results, for a stretch takes half a second."""

    def __init__(self, secret: Secret) -> None:
        self.kind = secret.kind
        self._normal = secret.normal
        self._known: dict[tuple[int, int, int, bytes], bytes] = {}

    @property
    def count(self) -> int:
        """How many stretches were made."""
        return len(self._known)

    def key_for(self, slot: Slot | SlotKey) -> bytes:
        """Return the slot key. Raises VaultDamaged for parameters that no honest slot has."""
        if (
            not 1 <= slot.iterations <= ARGON_ITERATIONS_MAX
            or not 1 <= slot.lanes <= ARGON_LANES_MAX
            or not 8 * slot.lanes <= slot.memory_kib <= ARGON_MEMORY_KIB_MAX
            or len(slot.salt) < ARGON_SALT_MIN
        ):
            raise VaultDamaged("a key slot has impossible parameters")
        parameters = (slot.iterations, slot.lanes, slot.memory_kib, slot.salt)
        found = self._known.get(parameters)
        if found is None:
            found = self._known[parameters] = Argon2id(
                salt=slot.salt,
                length=crypto.KEY_SIZE,
                iterations=slot.iterations,
                lanes=slot.lanes,
                memory_cost=slot.memory_kib,
            ).derive(self._normal)
        return found


_SLOT: Final = msgspec.json.Decoder(Slot)


def new_recovery_code(entropy: Entropy) -> str:
    """Return a code of 160 bits for people to keep: eight groups of four letters and digits."""
    text = base64.b32encode(entropy.token(CODE_SIZE)).decode("ascii")
    return "-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))


def check_new_secret(secret: Secret) -> None:
    """Raise SecretUnusable for a passphrase that is too short to protect anything."""
    length = len(secret.normal.decode("utf-8", "replace"))
    if secret.kind is SlotKind.PASSPHRASE and length < PASSPHRASE_LENGTH_MIN:
        raise SecretUnusable(f"a passphrase has at least {PASSPHRASE_LENGTH_MIN} characters")


def new_slot_key(
    secret: Secret, kem: Kem, *, label: str, created: str, entropy: Entropy
) -> tuple[str, SlotKey]:
    """Return (slot id, slot) for a new secret; takes as long as stretching does."""
    check_new_secret(secret)
    slot = SlotKey(
        kind=secret.kind,
        label=label,
        created=created,
        iterations=ARGON_ITERATIONS,
        lanes=ARGON_LANES,
        memory_kib=ARGON_MEMORY_KIB,
        salt=entropy.token(_SALT_SIZE),
        public=b"",
    )
    private = crypto.private_from(kem, Stretcher(secret).key_for(slot), _KEY_INFO)
    slot = msgspec.structs.replace(slot, public=crypto.public_of(kem, private))
    return to_text(entropy.token(SLOT_ID_SIZE)), slot


def _sealing_info(slot: Slot) -> bytes:
    """Everything in the slot that opening it does not prove by itself."""
    texts = f"{slot.kind}\0{slot.id}\0{slot.label}\0{slot.created}"
    return b"streamd/v1/slot|" + slot.vault + slot.edition.to_bytes(4, "big") + texts.encode()


def seal_slot(
    vault: bytes, kem: Kem, slot_id: str, slot: SlotKey, edition: int, kek: bytes
) -> bytes:
    """Return a slot object through which `slot` opens the ring of that edition."""
    made = Slot(
        kind=slot.kind,
        vault=vault,
        kdf=KDF,
        iterations=slot.iterations,
        lanes=slot.lanes,
        memory_kib=slot.memory_kib,
        salt=slot.salt,
        id=slot_id,
        label=slot.label,
        created=slot.created,
        edition=edition,
        kem=kem,
    )
    sealed = crypto.seal_to(kem, slot.public, kek, _sealing_info(made))
    made = msgspec.structs.replace(made, sealed=sealed)
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def slot_object_name(entropy: Entropy) -> str:
    """Return a new name for a slot object: each ring has slot objects of its own."""
    return layout.slot_name(entropy.token(SLOT_ID_SIZE))


def decode_slot(data: bytes, vault: bytes) -> Slot:
    """Parse a slot. Raises VaultDamaged, also for a slot of another vault."""
    slot = wire.decode(_SLOT, data, "a key slot")
    if slot.vault != vault:
        raise VaultDamaged("a key slot belongs to another vault")
    if slot.kdf != KDF or not 0 <= slot.edition <= _EDITION_MAX:
        raise VaultDamaged("a key slot has impossible parameters")
    return slot


def open_slot(slot: Slot, stretcher: Stretcher) -> bytes:
    """Return the key encryption key. Raises KeyRejected for another secret, VaultDamaged."""
    key = stretcher.key_for(slot)
    if slot.sealed:
        kem = crypto.kem_of(slot.kem)
        crypto.check_kem(kem)
        private = crypto.private_from(kem, key, _KEY_INFO)
        try:
            return crypto.open_sealed(kem, private, slot.sealed, _sealing_info(slot))
        except KeyRejected as error:
            raise KeyRejected(f"the {stretcher.kind} does not open this slot") from error
    aad = b"streamd/v1/slot|" + slot.vault + slot.kind.encode()
    try:
        return crypto.decrypt(crypto.cipher_for(key), 0, slot.wrapped, aad)
    except VaultDamaged as error:
        raise KeyRejected(f"the {stretcher.kind} does not open this slot") from error


def upgraded(slot: Slot, stretcher: Stretcher, kem: Kem) -> SlotKey:
    """Return the slot that the same secret opens, of the present kind, for the next ring."""
    private = crypto.private_from(kem, stretcher.key_for(slot), _KEY_INFO)
    return SlotKey(
        kind=slot.kind,
        label=slot.label,
        created=slot.created,
        iterations=slot.iterations,
        lanes=slot.lanes,
        memory_kib=slot.memory_kib,
        salt=slot.salt,
        public=crypto.public_of(kem, private),
    )
