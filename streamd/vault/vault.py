"""Create and open a vault.

A vault is there when its configuration object is; that object is put last, so that a crash while
creating leaves nothing that looks like a vault. Opening checks the configuration's signature
against the admin key that the host's key file pins, so a vault cannot be swapped for another.
"""

from collections.abc import Callable

import msgspec

from streamd import rescue
from streamd.effects import Clock, Entropy
from streamd.errors import (
    BlobConflict,
    KeyFileInvalid,
    VaultDamaged,
    VaultExists,
    VaultMissing,
)
from streamd.format import crypto, keys, layout, ring, slots
from streamd.format.crypto import Kem
from streamd.format.envelope import MAJOR, KeySigner, WriterKeys
from streamd.format.keys import HostKey, KeyChain, PrivateRing, PublicRing
from streamd.format.kit import Kit
from streamd.format.vault_config import (
    FORMAT,
    Certificate,
    Features,
    Suite,
    VaultConfig,
    check_supported,
    decode_signed,
    encode_signed,
    public_ring,
    published,
)
from streamd.model.ids import ID_SIZE, DomainId, VaultId, WriterId, from_text, to_text
from streamd.storage.port import BlobName, BlobStore
from streamd.vault.documents import (
    certificates,
    new_certificate,
    newest_config,
    utc_text,
    writer_keys,
)
from streamd.vault.keyring import draft_ring

README_TEXT = """This is a vault of streamd: continuous, encrypted, deduplicated protection of
files.

Everything here is immutable; do not rename, edit or delete objects. To restore you need streamd and
a key file of the host, or the recovery kit that was written when the vault was made.

Without streamd, v/rescue-HASH.py restores from this directory or container with the kit: Python and
its package "cryptography" are enough, and lz4, zstandard and blake3 if they can be had. Its first
lines say how. v/format-HASH.md describes every byte here. HASH is the SHA-256 of the file: whoever
can write here could have added another, so compare it with a release of streamd, or with your kit.
"""


class CreatedVault(msgspec.Struct, frozen=True):
    """What `streamd init` hands out, once: the host's key file and the recovery code."""

    host_key: HostKey
    recovery_code: str


def no_other_layer(_: BlobName) -> bool:
    """Say that a store has one layer only."""
    return False


class Vault(msgspec.Struct, frozen=True):
    """An open vault: the store, and this host's keys to it."""

    store: BlobStore
    keys: KeyChain
    config: VaultConfig
    verify_keys: dict[WriterId, WriterKeys]  # of the domain's writers
    # Told that an object of the nearer layer is bad: whether another layer is read from now on.
    distrust: Callable[[BlobName], bool] = no_other_layer

    @property
    def signer(self) -> KeySigner:
        """Signs as this host's writer."""
        return KeySigner(self.keys.host.signing_key)

    @property
    def identity(self) -> bytes:
        """Vault id and domain id: what frames are bound to."""
        return self.keys.vault + self.keys.domain


def new_host_key(kem: Kem, entropy: Entropy) -> HostKey:
    """Draw all keys of a new vault with one full host."""
    meta, data = crypto.generate_private(kem), crypto.generate_private(kem)
    admin, domain = crypto.generate_signing_key(), entropy.token(ID_SIZE)
    secret = entropy.token(crypto.KEY_SIZE)
    return HostKey(
        format=keys.KEY_FILE_FORMAT,
        major=1,
        vault=entropy.token(ID_SIZE),
        domain=domain,
        writer=entropy.token(ID_SIZE),
        signing_key=crypto.generate_signing_key(),
        domain_secret=secret,
        public=PublicRing(
            kem=kem,
            generation=1,
            meta=crypto.public_of(kem, meta),
            data=crypto.public_of(kem, data),
            admin=crypto.verify_key_of(admin),
        ),
        private=PrivateRing(
            kem=kem, meta={1: meta}, data={1: data}, admin=admin, domains={to_text(domain): secret}
        ),
    )


async def create_vault(
    store: BlobStore,
    *,
    host_name: str,
    clock: Clock,
    entropy: Entropy,
    host_key: HostKey | None = None,
    recovery_code: str | None = None,
    kem: Kem = Kem.MLKEM768_X25519,
) -> CreatedVault:
    """Create a vault with this host as its first. Raises VaultExists.

    A caller that must survive a crash half-way draws `host_key` and `recovery_code` itself, makes
    them durable first, and repeats the call with them: what the first attempt left is harmless.
    """
    host = host_key or new_host_key(kem, entropy)
    code = recovery_code or slots.new_recovery_code(entropy)
    if host.private is None or not host.private.slots:
        host = with_recovery_code(host, code, clock=clock, entropy=entropy)
    prepared = prepare_vault(host, host_name=host_name, now_us=clock.now_us(), entropy=entropy)
    await put_keys(store, prepared)
    await put_config(store, prepared)
    return CreatedVault(host, code)


def with_recovery_code(host: HostKey, code: str, *, clock: Clock, entropy: Entropy) -> HostKey:
    """Return a full host's keys with one slot: the recovery code's."""
    assert host.private is not None, "only a full host can create a vault"
    slot_id, slot = slots.new_slot_key(
        slots.Secret(slots.SlotKind.RECOVERY_CODE, code.encode()),
        crypto.kem_of(host.public.kem),
        label="recovery kit",
        created=utc_text(clock.now_us()),
        entropy=entropy,
    )
    private = msgspec.structs.replace(host.private, slots={slot_id: slot}, edition=1)
    return msgspec.structs.replace(host, private=private)


class PreparedVault(msgspec.Struct, frozen=True):
    """The first objects of a vault, in the order of putting them, and what the kit needs."""

    objects: tuple[tuple[str, bytes], ...]
    kit: Kit  # without address and code


def prepare_vault(host: HostKey, *, host_name: str, now_us: int, entropy: Entropy) -> PreparedVault:
    """Make the first objects of a vault. Pure: nothing is put."""
    assert host.private is not None, "only a full host can create a vault"
    writer, domain, vault = WriterId(host.writer), DomainId(host.domain), VaultId(host.vault)
    content = ring.RingContent(private=host.private, public=host.public)
    drafted = draft_ring(host.vault, content, now_us=now_us, entropy=entropy)
    assert ring.decode_ring(drafted.ring[1], drafted.kek, vault=host.vault) == content
    certificate = new_certificate(
        vault=vault,
        domain=domain,
        writer=writer,
        number=0,
        signing_key=host.signing_key,
        host=host_name,
        now_us=now_us,
    )
    config = VaultConfig(
        format=FORMAT,
        major=MAJOR,
        id=to_text(vault),
        created=utc_text(now_us),
        number=0,
        suite=Suite(kem=crypto.KEM_NAMES[Kem(host.public.kem)]),
        features=Features(),
        domains={to_text(domain): (to_text(writer),)},
        admin_public=host.public.admin.hex(),
        specification=rescue.specification_name(),
        public=published(host.public),
        ring=drafted.ring[0],
    )
    admin, documents = host.private.admin, rescue.documents()
    slot_id, (_, slot) = next(iter(drafted.slots.items()))
    return PreparedVault(
        objects=(
            (layout.README, README_TEXT.encode()),
            *documents.items(),
            drafted.ring,
            *drafted.slots.values(),
            (layout.certificate_name(writer, 0), encode_signed(certificate, admin)),
            (layout.config_name(0), encode_signed(config, admin)),
        ),
        kit=Kit(
            vault=host.vault,
            url="",
            admin=host.public.admin,
            slot_id=slot_id,
            created=utc_text(now_us),
            slot=slot,
            ring=drafted.ring[1],
        ),
    )


async def put_keys(store: BlobStore, prepared: PreparedVault) -> None:
    """Put all of a vault's first objects but the configuration. Raises VaultExists."""
    async for _ in store.scan(layout.CONFIG_PREFIX):
        raise VaultExists("there is a vault at this place already")
    for name, data in prepared.objects[:-1]:
        try:
            await store.put(BlobName(name), data)
        except BlobConflict:
            there = await store.get(BlobName(name))
            if not _is_repeated(data, there, prepared.kit.admin):
                raise


def _is_repeated(data: bytes, there: bytes, admin: bytes) -> bool:
    """Whether an earlier attempt has put the same certificate: only its date is another."""
    try:
        ours, theirs = (decode_signed(one, admin, Certificate) for one in (data, there))
    except VaultDamaged:
        return False
    return msgspec.structs.replace(ours, created=theirs.created) == theirs


async def put_config(store: BlobStore, prepared: PreparedVault) -> None:
    """Put the first configuration: now it is a vault."""
    name, data = prepared.objects[-1]
    await store.put(BlobName(name), data)


async def open_vault(store: BlobStore, host_key: HostKey, *, url: str = "") -> Vault:
    """Open the vault that `host_key` belongs to.

    Raises VaultMissing, KeyFileInvalid when the key file is another vault's, VaultDamaged,
    FormatUnsupported, and what the store raises.
    """
    config = await newest_config(store, host_key.public.admin)
    if config is None:
        raise VaultMissing(f"there is no vault at {url or 'this place'}", url=url)
    if config.id != to_text(host_key.vault):
        raise KeyFileInvalid("the key file belongs to another vault", path="vault.key_file")
    check_supported(config, config.features.read)
    vault = Vault(store, KeyChain(host_key), config, {})
    await follow(vault, store, config)
    crypto.check_kem(crypto.kem_of(vault.keys.public.kem))
    return vault


async def follow(vault: Vault, store: BlobStore, config: VaultConfig) -> None:
    """Believe what the newest configuration says about public keys and writers from now on."""
    keys = vault.keys
    keys.follow(public_ring(config, keys.public))
    for writer_text in config.domains.get(to_text(keys.domain), ()):
        writer = WriterId(from_text(writer_text))
        found = await certificates(
            store, writer, vault=keys.vault, domain=keys.domain, admin=keys.host.public.admin
        )
        vault.verify_keys[writer] = writer_keys(found)


def vault_id_of(config: VaultConfig) -> VaultId:
    """Return the vault's id."""
    return VaultId(from_text(config.id))
