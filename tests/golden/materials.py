"""The fixed material of the format's vectors and tests: keys, entropy and small objects.

Everything follows from labels by hashing, so that nothing here is secret and everything repeats.
The one thing that cannot be computed again is an HPKE encapsulation, which draws its own randomness:
`vectors/sessions.json` keeps one sealed session for each role.
"""

import json
from pathlib import Path

from blake3 import blake3

from streamd.format import crypto, keys
from streamd.format.codec import Codec
from streamd.format.crypto import AeadSuite, Kem
from streamd.format.envelope import KeySigner
from streamd.format.frame import FrameSealer, SealedBatch
from streamd.format.keys import (
    HostKey,
    KeyChain,
    KeySource,
    PrivateRing,
    PublicRing,
    Role,
    Session,
    new_session,
)
from streamd.model.ids import DomainId, VaultId, WriterId, to_text

VECTORS = Path(__file__).parent / "vectors"
SESSIONS = VECTORS / "sessions.json"
CREATED_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


def fixed(label: str, size: int = 32) -> bytes:
    """Return the bytes that `label` stands for: BLAKE3 of it, as long as asked."""
    return blake3(label.encode()).digest(length=size)


class CountedEntropy:
    """Token n (from 0) is BLAKE3("<label>|<n>"), as long as asked."""

    def __init__(self, label: str = "entropy") -> None:
        self.label, self.count = label, 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return fixed(f"{self.label}|{self.count - 1}", size)


VAULT = VaultId(fixed("vault", 16))
DOMAIN = DomainId(fixed("domain", 16))
WRITER = WriterId(fixed("writer", 16))
IDENTITY = VAULT + DOMAIN
ADMIN_KEY = fixed("admin signing key")
SIGNING_KEY = fixed("writer signing key")
DOMAIN_SECRET = fixed("domain secret")
KEK = fixed("key encryption key")
RECOVERY_CODE = "MZXW-6YTB-OI5D-KNRX-GQYT-EMZU-GU3D-OOBZ"
WRITER_PUBLIC = crypto.verify_key_of(SIGNING_KEY)
ADMIN_PUBLIC = crypto.verify_key_of(ADMIN_KEY)
SIGNER = KeySigner(SIGNING_KEY)
ADMIN = KeySigner(ADMIN_KEY)


def private_key(kem: Kem, label: str) -> bytes:
    """Return a recipient's private key in its stored form."""
    return fixed(f"{label} private key", 32 if kem is Kem.X25519 else 96)


def host_key(kem: Kem = Kem.MLKEM768_X25519, *, full: bool = True) -> HostKey:
    """Return the key file of the vectors' only host."""
    meta, data = private_key(kem, "META"), private_key(kem, "DATA")
    public = PublicRing(
        kem=kem,
        generation=1,
        meta=crypto.public_of(kem, meta),
        data=crypto.public_of(kem, data),
        admin=ADMIN_PUBLIC,
    )
    private = PrivateRing(
        kem=kem,
        meta={1: meta},
        data={1: data},
        admin=ADMIN_KEY,
        domains={to_text(DOMAIN): DOMAIN_SECRET},
    )
    return HostKey(
        format=keys.KEY_FILE_FORMAT,
        major=1,
        vault=VAULT,
        domain=DOMAIN,
        writer=WRITER,
        signing_key=SIGNING_KEY,
        domain_secret=DOMAIN_SECRET,
        public=public,
        private=private if full else None,
    )


def key_chain(kem: Kem = Kem.MLKEM768_X25519, *, full: bool = True) -> KeyChain:
    """Return the keys of the vectors' host, with no session remembered."""
    return KeyChain(host_key(kem, full=full))


def chunk_ids(chain: KeyChain, chunks: list[bytes]) -> bytes:
    """Return the ids of chunks, side by side."""
    return b"".join(chain.domain_keys.chunk_id(chunk) for chunk in chunks)


def sealed_batch(
    session: Session, salt: bytes, frames: list[tuple[Codec, list[bytes]]], chain: KeyChain
) -> SealedBatch:
    """Return a batch of frames, each made of a codec and its chunks."""
    sealer = FrameSealer(session, salt, IDENTITY)
    for codec, chunks in frames:
        sizes = [len(chunk) for chunk in chunks]
        sealer.seal(b"".join(chunks), chunk_ids(chain, chunks), sizes, codec=codec)
    return sealer.finish()


def _drawn_session(label: str, kem: Kem, role: Role) -> Session:
    return new_session(VAULT, host_key(kem).public, role, CountedEntropy(label))


def record_sessions() -> None:
    """Draw the sessions of the vectors and keep them; done once, ever."""
    rows = {}
    for label, kem, role in (
        ("meta", Kem.MLKEM768_X25519, Role.META),
        ("data", Kem.MLKEM768_X25519, Role.DATA),
        ("data-2", Kem.MLKEM768_X25519, Role.DATA),
        ("data-x25519", Kem.X25519, Role.DATA),
    ):
        session = _drawn_session(label, kem, role)
        rows[label] = {
            "suite": session.source.suite,
            "kem": session.source.kem,
            "role": session.source.role,
            "generation": session.source.generation,
            "session": session.source.session.hex(),
            "sealed": session.source.sealed.hex(),
            "secret": session.secret.hex(),
        }
    SESSIONS.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def recorded_session(label: str) -> Session:
    """Return a session of the vectors."""
    row = json.loads(SESSIONS.read_text("utf-8"))[label]
    source = KeySource(
        AeadSuite(row["suite"]),
        row["kem"],
        row["role"],
        row["generation"],
        bytes.fromhex(row["session"]),
        bytes.fromhex(row["sealed"]),
    )
    return Session(source, bytes.fromhex(row["secret"]))
