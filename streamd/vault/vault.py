"""Create and open a vault.

A vault is there when its configuration object is; that object is put last, so that a crash while
creating leaves nothing that looks like a vault. Opening checks the configuration's signature
against the admin key that the host's key file pins, so a vault cannot be swapped for another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from streamd.effects import MICROSECONDS, Clock, Entropy
from streamd.errors import (
    BlobNotFound,
    KeyFileInvalid,
    KeyRejected,
    StreamdError,
    VaultDamaged,
    VaultExists,
    VaultMissing,
)
from streamd.format import crypto, keys, layout, ring
from streamd.format.crypto import Kem
from streamd.format.envelope import MAJOR, KeySigner
from streamd.format.keys import HostKey, KeyChain, PrivateRing, PublicRing
from streamd.format.vault_config import (
    FORMAT,
    Certificate,
    Features,
    Suite,
    VaultConfig,
    check_supported,
    decode_signed,
    encode_signed,
)
from streamd.model.ids import ID_SIZE, DomainId, VaultId, WriterId, from_text, to_text
from streamd.storage.port import BlobName, BlobStore

T = TypeVar("T", VaultConfig, Certificate)

README_TEXT = """This is a vault of streamd: continuous, encrypted, deduplicated protection of
files.

Everything here is immutable; do not rename, edit or delete objects. To restore you need streamd and
a key file of the host, or the recovery kit that was written when the vault was made. The format
is described in docs/format.md of the streamd project.
"""
_KEM_NAMES = {Kem.X25519: "x25519", Kem.MLKEM768_X25519: "mlkem768-x25519"}
_SPECIFICATION = "docs/format.md of the streamd release that created this vault"


@dataclass(frozen=True, slots=True)
class CreatedVault:
    """What `streamd init` hands out, once: the host's key file and the recovery code."""

    host_key: HostKey
    recovery_code: str


@dataclass(frozen=True, slots=True)
class Vault:
    """An open vault: the store, and this host's keys to it."""

    store: BlobStore
    keys: KeyChain
    config: VaultConfig
    verify_keys: dict[WriterId, bytes]  # Ed25519 public keys of the domain's writers

    @property
    def signer(self) -> KeySigner:
        """Signs as this host's writer."""
        return KeySigner(self.keys.host.signing_key)

    @property
    def identity(self) -> bytes:
        """Vault id and domain id: what frames are bound to."""
        return self.keys.vault + self.keys.domain


def utc_text(at_us: int) -> str:
    """Return an instant as RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(at_us // MICROSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
    async for _ in store.scan(layout.CONFIG_PREFIX):
        raise VaultExists("there is a vault at this place already")
    host = host_key or new_host_key(kem, entropy)
    assert host.private is not None, "only a full host can create a vault"
    code = recovery_code or ring.new_recovery_code(entropy)
    now_us, admin = clock.now_us(), KeySigner(host.private.admin)
    kek = entropy.token(crypto.KEY_SIZE)
    slot_name, slot = ring.new_code_slot(host.vault, kek, code, entropy)
    content = ring.RingContent(private=host.private, public=host.public)
    sealed = ring.encode_ring(
        content, kek, vault=host.vault, now_us=now_us, signer=admin, entropy=entropy
    )
    assert ring.decode_ring(sealed.data, ring.open_slot(slot, host.vault, code)) == content
    writer, domain = WriterId(host.writer), DomainId(host.domain)
    certificate = Certificate(
        vault=to_text(host.vault),
        domain=to_text(domain),
        writer=to_text(writer),
        number=0,
        public=crypto.verify_key_of(host.signing_key).hex(),
        host=host_name,
        created=utc_text(now_us),
    )
    config = VaultConfig(
        format=FORMAT,
        major=MAJOR,
        id=to_text(host.vault),
        created=utc_text(now_us),
        number=0,
        suite=Suite(kem=_KEM_NAMES[Kem(host.public.kem)]),
        features=Features(),
        domains={to_text(domain): (to_text(writer),)},
        admin_public=host.public.admin.hex(),
        specification=_SPECIFICATION,
    )
    certificate_name = layout.certificate_name(writer, 0)
    await store.put(BlobName(layout.README), README_TEXT.encode())
    await store.put(BlobName(sealed.name), sealed.data)
    await store.put(BlobName(slot_name), slot)
    await store.put(BlobName(certificate_name), encode_signed(certificate, host.private.admin))
    await store.put(BlobName(layout.config_name(0)), encode_signed(config, host.private.admin))
    return CreatedVault(host, code)


async def open_vault(store: BlobStore, host_key: HostKey, *, url: str = "") -> Vault:
    """Open the vault that `host_key` belongs to.

    Raises VaultMissing, KeyFileInvalid when the key file is another vault's, VaultDamaged,
    FormatUnsupported, and what the store raises.
    """
    names = [info.name async for info in store.scan(layout.CONFIG_PREFIX)]
    if not names:
        raise VaultMissing(f"there is no vault at {url or 'this place'}", url=url)
    admin = host_key.public.admin
    config = await _newest(store, names, admin, VaultConfig, layout.config_name)
    if config.id != to_text(host_key.vault):
        raise KeyFileInvalid("the key file belongs to another vault", path="vault.key_file")
    check_supported(config, config.features.read)
    verify_keys: dict[WriterId, bytes] = {}
    for writer_text in config.domains.get(to_text(host_key.domain), ()):
        writer = WriterId(from_text(writer_text))
        verify_keys[writer] = await _verify_key(store, writer, host_key)
    return Vault(store, KeyChain(host_key), config, verify_keys)


async def _newest(
    store: BlobStore,
    names: Sequence[BlobName],
    admin: bytes,
    kind: type[T],
    name_of: Callable[[int], str],
) -> T:
    """Return the highest-numbered document that the admin signed for that very name.

    Anybody who can add an object can add one with a higher number: what does not verify is passed
    over. Raises the first failure if none does.
    """
    failure: StreamdError | None = None
    for name in sorted(names, reverse=True):
        try:
            document = decode_signed(await store.get(name), admin, kind)
        except (VaultDamaged, BlobNotFound) as error:
            failure = failure or error
            continue
        if name_of(document.number) == name:
            return document
        failure = failure or VaultDamaged(f"{name} stands under another document's name")
    raise failure or BlobNotFound("a signed document is missing", name=name_of(0))


async def _verify_key(store: BlobStore, writer: WriterId, host_key: HostKey) -> bytes:
    names = [info.name async for info in store.scan(layout.certificate_prefix(writer))]
    certificate = await _newest(
        store,
        names,
        host_key.public.admin,
        Certificate,
        lambda number: layout.certificate_name(writer, number),
    )
    expected = (to_text(writer), to_text(host_key.domain), to_text(host_key.vault))
    if (certificate.writer, certificate.domain, certificate.vault) != expected:
        raise KeyRejected("a certificate stands under another writer's name")
    return bytes.fromhex(certificate.public)


def vault_id_of(config: VaultConfig) -> VaultId:
    """Return the vault's id."""
    return VaultId(from_text(config.id))
