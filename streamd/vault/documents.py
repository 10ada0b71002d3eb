"""The documents of a vault: its configuration and the writers' certificates, which are signed, and
what restores it without streamd.

Anybody who can add objects can add one with a higher number: what does not verify is passed over.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from streamd import rescue
from streamd.effects import MICROSECONDS
from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    KeysChanged,
    StreamdError,
    VaultDamaged,
)
from streamd.format import crypto, layout
from streamd.format.envelope import CertifiedKey, WriterKeys
from streamd.format.vault_config import (
    Certificate,
    VaultConfig,
    decode_signed,
    decode_unsigned,
    encode_signed,
)
from streamd.model.ids import DomainId, VaultId, WriterId, from_text, to_text
from streamd.storage.port import BlobName, BlobStore

T = TypeVar("T", VaultConfig, Certificate)
_DOCUMENT_SIZE_MAX: Final = 4 * 1024 * 1024  # 10,000 domains are 600 KB


def utc_text(at_us: int) -> str:
    """Return an instant as RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(at_us // MICROSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _names(store: BlobStore, prefix: str) -> list[BlobName]:
    scan = store.scan(prefix)
    names = [info.name async for info in scan if info.size_bytes <= _DOCUMENT_SIZE_MAX]
    return sorted(names, reverse=True)


async def put_documents(store: BlobStore) -> list[str]:
    """Put this release's rescue script and specification if they are missing; return their names.

    Earlier ones stay: they describe what was written then. Raises what the store raises.
    """
    known = {info.name async for info in store.scan(layout.DOCUMENT_PREFIX)}
    missing = {name: data for name, data in rescue.documents().items() if name not in known}
    for name, data in missing.items():
        await store.put(BlobName(name), data)
    return list(missing)


async def newest_config(store: BlobStore, admin: bytes | None) -> VaultConfig | None:
    """Return the newest configuration that the admin signed; None if the vault has none at all.

    Without `admin`, the newest that parses: a hint, for whoever has no key yet. Raises VaultDamaged
    if there are some and none verifies.
    """
    names = await _names(store, layout.CONFIG_PREFIX)
    return await newest(store, names, admin, VaultConfig, layout.config_name) if names else None


async def newest(
    store: BlobStore,
    names: Sequence[BlobName],
    admin: bytes | None,
    kind: type[T],
    name_of: Callable[[int], str],
) -> T:
    """Return the first document in `names` that is signed for that very name.

    Raises the first failure if none is.
    """
    failure: StreamdError | None = None
    for name in names:
        try:
            data = await store.get(name)
            document = (
                decode_unsigned(data, kind) if admin is None else decode_signed(data, admin, kind)
            )
        except (VaultDamaged, BlobNotFound) as error:
            failure = failure or error
            continue
        if name_of(document.number) == name:
            return document
        failure = failure or VaultDamaged(f"{name} stands under another document's name")
    raise failure or BlobNotFound("a signed document is missing", name=name_of(0))


async def certificates(
    store: BlobStore, writer: WriterId, *, vault: VaultId, domain: DomainId, admin: bytes
) -> list[Certificate]:
    """Return a writer's certificates, newest first. Raises VaultDamaged if there is none.

    Each vouches for one key; a later one of the same key says when that was revoked.
    """
    found: list[Certificate] = []
    failure: StreamdError | None = None
    expected = (to_text(writer), to_text(domain), to_text(vault))
    for name in await _names(store, layout.certificate_prefix(writer)):
        try:
            document = decode_signed(await store.get(name), admin, Certificate)
        except (VaultDamaged, BlobNotFound) as error:
            failure = failure or error
            continue
        is_here = layout.certificate_name(writer, document.number) == name
        if is_here and (document.writer, document.domain, document.vault) == expected:
            found.append(document)
        else:
            failure = failure or VaultDamaged(f"{name} stands under another document's name")
    if not found:
        raise failure or BlobNotFound(
            "a writer's certificate is missing", name=layout.certificate_name(writer, 0)
        )
    return found


def writer_keys(found: Sequence[Certificate]) -> WriterKeys:
    """Return the keys of certificates that come newest first: one word for each key, the last."""
    keys: dict[bytes, CertifiedKey] = {}
    for one in found:
        try:
            public = bytes.fromhex(one.public)
        except ValueError as error:
            raise VaultDamaged("a certificate's key does not parse") from error
        keys.setdefault(public, CertifiedKey(public, one.revoked_from_us))
    return tuple(keys.values())


def new_certificate(
    *,
    vault: VaultId,
    domain: DomainId,
    writer: WriterId,
    number: int,
    signing_key: bytes,
    host: str,
    now_us: int,
) -> Certificate:
    """Return the certificate of a signing key."""
    return Certificate(
        vault=to_text(vault),
        domain=to_text(domain),
        writer=to_text(writer),
        number=number,
        public=crypto.verify_key_of(signing_key).hex(),
        host=host,
        created=utc_text(now_us),
    )


async def put_certificate(store: BlobStore, certificate: Certificate, admin_key: bytes) -> None:
    """Put a certificate under its name, unless an earlier attempt has put it for the same key.

    Raises KeysChanged if the number is taken.
    """
    writer = WriterId(from_text(certificate.writer))
    name = BlobName(layout.certificate_name(writer, certificate.number))
    try:
        await store.put(name, encode_signed(certificate, admin_key))
    except BlobConflict as error:
        admin = crypto.verify_key_of(admin_key)
        there = decode_signed(await store.get(name), admin, Certificate)
        if there.public != certificate.public:
            raise KeysChanged("another certificate was made at the same moment") from error


def revoked(certificate: Certificate, *, number: int, from_us: int) -> Certificate:
    """Return the certificate that takes the trust in a key back, from an instant on."""
    return msgspec.structs.replace(certificate, number=number, revoked_from_us=from_us)
