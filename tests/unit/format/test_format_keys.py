"""Key files, sessions, and who may know what."""

import json

import msgspec
import pytest
from golden.materials import (
    DOMAIN,
    DOMAIN_SECRET,
    VAULT,
    CountedEntropy,
    fixed,
    host_key,
    key_chain,
)

from streamd.errors import FormatUnsupported, KeyFileInvalid, KeyRejected
from streamd.format.crypto import Kem
from streamd.format.keys import (
    CHUNKER_SEED_MAX,
    KeySource,
    Role,
    Session,
    decode_host_key,
    domain_keys,
    encode_host_key,
    index_source,
    new_session,
)
from streamd.model.ids import VaultId


@pytest.mark.parametrize("kem", list(Kem))
@pytest.mark.parametrize("full", [True, False])
def test_a_key_file_comes_back(kem: Kem, *, full: bool) -> None:
    key = host_key(kem, full=full)
    assert decode_host_key(encode_host_key(key), "/k") == key
    assert key.is_full is full


def test_a_field_added_to_the_key_file_later_is_ignored() -> None:
    stored = json.loads(encode_host_key(host_key()))
    stored["later"] = {"x": [1]}
    assert decode_host_key(json.dumps(stored).encode(), "/k") == host_key()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"format": "\xff"}',
        b"[" * 100_000,
        b'{"x":' + b"[" * 100_000,
        b"null",
    ],
)
def test_what_is_no_key_file_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(KeyFileInvalid, match="is not a streamd key file"):
        decode_host_key(data, "/etc/streamd/host.key")


@pytest.mark.parametrize("change", [{"format": "ssh"}, {"major": 2}])
def test_a_key_file_of_another_format_is_refused(change: dict[str, object]) -> None:
    stored = json.loads(encode_host_key(host_key())) | change
    with pytest.raises(KeyFileInvalid, match="another format"):
        decode_host_key(json.dumps(stored).encode(), "/k")


@pytest.mark.parametrize("field", ["vault", "domain", "writer", "signing_key", "domain_secret"])
def test_a_key_of_another_length_is_damage_found_at_once(field: str) -> None:
    damaged = msgspec.structs.replace(host_key(), **{field: b"short"})
    with pytest.raises(KeyFileInvalid, match="damaged"):
        decode_host_key(encode_host_key(damaged), "/k")


def test_domain_keys_are_three_different_keys_that_do_not_print() -> None:
    derived = domain_keys(DOMAIN_SECRET)
    assert derived.id_key != derived.index_key
    assert derived.id_key.hex() not in repr(derived)
    assert "chunker_seed" not in repr(derived)
    assert derived.chunk_id(b"x") != domain_keys(fixed("another secret")).chunk_id(b"x")
    assert derived.source_id("home") != derived.source_id("etc")
    assert len(derived.source_id("home")) == 16


def test_every_domain_secret_gives_a_seed_the_chunker_can_take() -> None:
    seeds = [domain_keys(fixed(f"secret {i}")).chunker_seed for i in range(64)]
    assert all(0 <= seed <= CHUNKER_SEED_MAX for seed in seeds)
    assert max(seeds) > CHUNKER_SEED_MAX // 2


@pytest.mark.parametrize("kem", list(Kem))
@pytest.mark.parametrize("role", [Role.META, Role.DATA])
def test_a_full_host_finds_the_secret_of_any_session(kem: Kem, role: Role) -> None:
    chain = key_chain(kem)
    session = new_session(VAULT, chain.host.public, role, CountedEntropy())
    assert chain.secret_for(session.source) == session.secret
    assert chain.secret_for(session.source) == session.secret  # now remembered
    assert session.secret.hex() not in repr(session)


def test_a_write_only_host_knows_its_own_sessions_only() -> None:
    chain = key_chain(full=False)
    own = new_session(VAULT, chain.host.public, Role.DATA, CountedEntropy("own"))
    other = new_session(VAULT, chain.host.public, Role.DATA, CountedEntropy("other"))
    chain.remember(own)
    assert chain.secret_for(own.source) == own.secret
    assert chain.secret_for(index_source(DOMAIN)) == chain.domain_keys.index_key
    with pytest.raises(KeyRejected):
        chain.secret_for(other.source)


def test_a_session_is_bound_to_vault_role_generation_and_number() -> None:
    chain = key_chain()
    session = new_session(VAULT, chain.host.public, Role.DATA, CountedEntropy())
    source = session.source
    private = msgspec.structs.replace(chain.host.private, meta=chain.host.private.data)
    same_key = msgspec.structs.replace(chain.host, private=private)
    chain = type(chain)(same_key)
    for changed in (
        msgspec.structs.replace(source, role=Role.META),
        msgspec.structs.replace(source, session=bytes(8)),
        msgspec.structs.replace(source, generation=2),
        msgspec.structs.replace(source, generation=2**70),
        msgspec.structs.replace(source, role=99),
        msgspec.structs.replace(source, kem=Kem.X25519),
        msgspec.structs.replace(source, sealed=b""),
    ):
        with pytest.raises(KeyRejected):
            chain.secret_for(changed)
    chain.vault = VaultId(fixed("another vault", 16))
    with pytest.raises(KeyRejected):
        chain.secret_for(source)


def test_an_unknown_key_encapsulation_needs_a_newer_streamd() -> None:
    with pytest.raises(FormatUnsupported):
        key_chain().secret_for(KeySource(1, 9, Role.DATA, 1, bytes(8), b"x"))


def test_a_session_can_be_used_in_a_table() -> None:
    assert isinstance(hash(Session(index_source(DOMAIN), b"")), int)
