"""Taking the trust in a writer's signing keys back, from an instant on.

Certificates are never changed: a further one of the same key says since when it counts no more.
Readers believe what the key signed before; from the instant on an object with its signature is
damage, wherever it stands.
"""

from enum import StrEnum

from streamd.daemon.keyholder import KeyHolder
from streamd.errors import NotFound, UsageInvalid
from streamd.format import crypto
from streamd.format.vault_config import Certificate
from streamd.model.ids import DomainId, VaultId, WriterId, from_text
from streamd.vault.documents import certificates, newest_config, put_certificate, revoked


class Keys(StrEnum):
    """Which of a writer's signing keys."""

    OLD = "old"  # those that a rotation has replaced
    ALL = "all"  # the one in use, too: the host is gone


async def revoke_writer(holder: KeyHolder, host: str, which: Keys, *, from_us: int) -> list[int]:
    """Revoke signing keys of the writer of `host`, a name or an id, from an instant on.

    Returns the numbers of the new certificates; none for a key that was revoked earlier already.
    Raises NotFound, KeysChanged, and UsageInvalid if nothing would be left for this host to sign
    with.
    """
    found = await _certificates_of(holder, host)
    newest: dict[str, Certificate] = {}
    for one in found:  # newest first: the last word about each key
        newest.setdefault(one.public, one)
    in_use = _in_use(found)
    own = holder.host
    signs_here = own is not None and crypto.verify_key_of(own.signing_key).hex() == in_use
    if which is Keys.ALL and signs_here:
        raise UsageInvalid(
            "this host signs with it: first streamd key rotate certificate, then --keys old"
        )
    chosen = [
        one
        for public, one in newest.items()
        if (which is Keys.ALL or public != in_use) and not 0 < one.revoked_from_us <= from_us
    ]
    if not chosen and which is Keys.OLD and len(newest) == 1:
        raise UsageInvalid(
            "its only signing key is in use: rotate the certificate there first, or say --keys all"
        )
    number, made = found[0].number, []
    for one in chosen:
        number += 1
        told = revoked(one, number=number, from_us=from_us)
        await put_certificate(holder.record, told, holder.content.private.admin)
        made.append(number)
    await holder.mirror()
    return made


def _in_use(found: list[Certificate]) -> str:
    """Return the key that was certified last: a revocation certifies none."""
    first: dict[str, int] = {}
    for one in found:
        first[one.public] = one.number  # newest first: what stays is the first certificate
    return max(first, key=lambda public: first[public])


async def _certificates_of(holder: KeyHolder, host: str) -> list[Certificate]:
    """Return the certificates of the writer of a host, newest first. Raises NotFound."""
    admin = holder.content.public.admin
    config = await newest_config(holder.record, admin)
    names = []
    for domain, writers in (config.domains if config is not None else {}).items():
        for writer in writers:
            found = await certificates(
                holder.record,
                WriterId(from_text(writer)),
                vault=VaultId(holder.vault),
                domain=DomainId(from_text(domain)),
                admin=admin,
            )
            if host in {found[0].host, domain, writer}:
                return found
            names.append(found[0].host)
    raise NotFound(f"the vault has no writer {host}; there is: {', '.join(sorted(names))}")
