"""The key hierarchy: what a host holds, and what opens what.

    host key file ──┬─ signing key (Ed25519)              signs this writer's objects
                    ├─ domain secret ──┬─ id key          chunk ids
                    │                  ├─ index key       sections that a write-only host must read
                    │                  └─ chunker seed
                    ├─ public ring: META, DATA, ADMIN     all that capturing needs
                    └─ private ring (role full only)      META and DATA private keys: restore

A session key is drawn at random, used for at most a day, and sealed (HPKE) to META or DATA. Every
object and every batch of frames derives its own key from a session key and a random salt.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import HostWriteOnly, KeyFileInvalid, KeyRejected
from streamd.format import batch, crypto, wire
from streamd.format.crypto import AeadSuite
from streamd.model.ids import ID_SIZE, DomainId, SourceId, VaultId, WriterId

SALT_SIZE: Final = 16
SESSION_ID_SIZE: Final = 8
KEY_FILE_FORMAT: Final = "streamd-host-key"
CHUNKER_SEED_MAX: Final = 2**63 - 1  # the chunker shifts its seed left in 64 bits
SESSION_SECONDS_MAX: Final = 24 * 3600


class Role(IntEnum):
    """Which key opens a part."""

    DATA = 1  # file content
    META = 2  # names, versions, checkpoints
    INDEX = 3  # which chunks an object holds: readable by every host of the domain
    RING = 4  # the key ring itself, under a key encryption key


class KeySource(msgspec.Struct, array_like=True, frozen=True):
    """One row of an object's key table: where the key of a part comes from."""

    suite: int
    kem: int
    role: int
    generation: int
    session: bytes
    sealed: bytes  # the session key sealed to (role, generation); empty for INDEX and RING


class PublicRing(msgspec.Struct, frozen=True, kw_only=True):
    """The vault's public keys of the newest generation."""

    kem: int
    generation: int
    meta: bytes
    data: bytes
    admin: bytes  # Ed25519


class SlotKey(msgspec.Struct, frozen=True, kw_only=True):
    """One way to open the key ring: how its secret is stretched, and the public key that follows.

    Kept inside the ring, so that whoever opened it can seal the next ring to every slot without
    their secrets, and nobody who holds less can add a slot.
    """

    kind: str  # passphrase, key-file, recovery-code
    label: str
    created: str  # RFC 3339
    iterations: int
    lanes: int
    memory_kib: int
    salt: bytes
    public: bytes


class PrivateRing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that reads the vault: every generation of private keys, and the domain secrets."""

    kem: int
    meta: dict[int, bytes]
    data: dict[int, bytes]
    admin: bytes
    domains: dict[str, bytes]  # domain id in text -> domain secret
    edition: int = 0  # counts the rings of a vault; 0: made before rings were counted
    slots: dict[str, SlotKey] = {}  # slot id -> slot


class HostKey(msgspec.Struct, frozen=True, kw_only=True):
    """The host's key file (JSON, mode 0600). What a host may do is what this holds."""

    format: str
    major: int
    vault: bytes
    domain: bytes
    writer: bytes
    signing_key: bytes
    domain_secret: bytes
    public: PublicRing
    private: PrivateRing | None = None

    @property
    def is_full(self) -> bool:
        """Whether this host can read the vault (role `full`), not only write to it."""
        return self.private is not None


def encode_host_key(key: HostKey) -> bytes:
    """Return the key file's bytes."""
    return msgspec.json.format(msgspec.json.encode(key), indent=2) + b"\n"


def decode_host_key(data: bytes, path: str) -> HostKey:
    """Parse a key file. Raises KeyFileInvalid; the message never contains key material."""
    try:
        key = msgspec.json.decode(data, type=HostKey)
    except wire.MALFORMED:
        raise KeyFileInvalid(f"{path} is not a streamd key file", path=path) from None
    if key.format != KEY_FILE_FORMAT or key.major != 1:
        raise KeyFileInvalid(f"{path} is a key file of another format", path=path)
    ids = (key.vault, key.domain, key.writer)
    secrets = (key.signing_key, key.domain_secret, key.public.admin)
    if {len(each) for each in ids} != {ID_SIZE} or {len(s) for s in secrets} != {crypto.KEY_SIZE}:
        raise KeyFileInvalid(f"{path} is damaged", path=path)
    return key


class DomainKeys(msgspec.Struct, frozen=True):
    """What follows from a domain secret."""

    id_key: bytes
    index_key: bytes
    chunker_seed: int

    def __repr__(self) -> str:
        """Show nothing: all of it is secret."""
        return "DomainKeys()"

    def chunk_id(self, data: crypto.Buffer) -> bytes:
        """Return the id of a chunk of plaintext."""
        return crypto.keyed_digest(self.id_key, data)

    def chunk_ids(self, data: memoryview, starts: list[int], sizes: list[int]) -> list[bytes]:
        """Return the ids of chunks that stand in `data`, small ones: it is one call."""
        return batch.chunk_ids(self.id_key, data, starts, sizes)

    def source_id(self, name: str) -> SourceId:
        """Return the id of the source called `name`: the same name, the same history."""
        return SourceId(crypto.keyed_digest(self.id_key, b"source|" + name.encode())[:16])


def domain_keys(secret: bytes) -> DomainKeys:
    """Derive the keys of a dedup domain."""
    return DomainKeys(
        id_key=crypto.derive(secret, salt=b"", info=b"streamd/v1/id"),
        index_key=crypto.derive(secret, salt=b"", info=b"streamd/v1/index"),
        chunker_seed=CHUNKER_SEED_MAX
        & int.from_bytes(
            crypto.derive(secret, salt=b"", info=b"streamd/v1/chunker", size=8), "big"
        ),
    )


class Session(msgspec.Struct, frozen=True):
    """A session key of ours: the key table row to publish, and the secret that goes with it."""

    source: KeySource
    secret: bytes

    def __repr__(self) -> str:
        """Show everything but the secret."""
        return f"Session(source={self.source!r})"


def _sealing_info(vault: bytes, role: int, generation: int, session: bytes) -> bytes:
    return b"streamd/v1/session|" + vault + bytes((role,)) + generation.to_bytes(4, "big") + session


def new_session(vault: VaultId, ring: PublicRing, role: Role, entropy: Entropy) -> Session:
    """Draw a session key and seal it to the vault's public key for `role`."""
    assert role in (Role.DATA, Role.META)
    kem = crypto.kem_of(ring.kem)
    secret, session = entropy.token(crypto.KEY_SIZE), entropy.token(SESSION_ID_SIZE)
    info = _sealing_info(vault, role, ring.generation, session)
    public = ring.data if role is Role.DATA else ring.meta
    sealed = crypto.seal_to(kem, public, secret, info)
    source = KeySource(AeadSuite.AES256GCM, kem, role, ring.generation, session, sealed)
    return Session(source, secret)


def index_source(domain: DomainId) -> KeySource:
    """Return the key table row of parts under the domain's index key."""
    return KeySource(AeadSuite.AES256GCM, 0, Role.INDEX, 0, domain[:SESSION_ID_SIZE], b"")


def _private_keys(host: HostKey) -> Mapping[int, Mapping[int, bytes]]:
    if host.private is None:
        return {}
    return {Role.META: host.private.meta, Role.DATA: host.private.data}


class KeyChain:
    """Finds the secret behind a key table row, as far as this host's keys go.

    Our own sessions are remembered, so that a write-only host can finish what it began in this
    process; all others need the private ring. Not safe for concurrent first use of one row,
    harmless though:
    both find the same secret.
    """

    def __init__(self, host: HostKey) -> None:
        self.host = host
        self.public = host.public  # what new sessions are sealed to
        self.vault = VaultId(host.vault)
        self.domain = DomainId(host.domain)
        self.writer = WriterId(host.writer)
        self.domain_keys = domain_keys(host.domain_secret)
        self._private: Mapping[int, Mapping[int, bytes]] = _private_keys(host)
        self._secrets: dict[KeySource, bytes] = {}

    def adopt(self, host: HostKey) -> None:
        """Go on with a changed key file of the same writer: signing key, role, key pairs."""
        assert (host.vault, host.domain, host.writer) == (self.vault, self.domain, self.writer)
        if not host.is_full and self.host.is_full:
            self._secrets.clear()  # what the private keys opened must not stay readable
        self.host = host
        self._private = _private_keys(host)
        self.follow(host.public)

    def follow(self, public: PublicRing) -> None:
        """Seal new sessions to these keys from now on, unless they are older than ours."""
        if public.generation > self.public.generation:
            self.public = public

    def lend(self, role: Role, private: Mapping[int, bytes]) -> None:
        """Open parts of one role with these private keys, too, as long as this object is there."""
        self._private = {**self._private, role: dict(private)}

    def remember(self, session: Session) -> None:
        """Keep a session of our own."""
        self._secrets[session.source] = session.secret

    def secret_for(self, source: KeySource) -> bytes:
        """Return the secret of a key table row. Raises KeyRejected if this host may not know it."""
        if source.role == Role.INDEX:
            return self.domain_keys.index_key
        known = self._secrets.get(source)
        if known is not None:
            return known
        private = self._private.get(source.role, {}).get(source.generation)
        if private is None and not self._private:
            raise HostWriteOnly("this host may write to the vault and not read it")
        if private is None:
            raise KeyRejected("this host's key file has no private key for this part of the vault")
        info = _sealing_info(self.vault, source.role, source.generation, source.session)
        secret = crypto.open_sealed(crypto.kem_of(source.kem), private, source.sealed, info)
        self._secrets[source] = secret
        return secret
