"""Write the byte-exact vectors of the vault format: `python tests/golden/make_vectors.py`.

Everything but the sealed sessions follows from fixed labels, so running it again changes nothing
unless the format's bytes changed, and those are final. `vectors/manifest.json` says for every valid
object what a reader must find in it, and for every invalid one with which error it must refuse.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden.invalid import invalid_objects  # noqa: E402 - the path comes first
from golden.keyring import KEK_2, SECRETS  # noqa: E402
from golden.materials import (  # noqa: E402
    ADMIN_KEY,
    DOMAIN,
    DOMAIN_SECRET,
    IDENTITY,
    KEK,
    RECOVERY_CODE,
    SESSIONS,
    SIGNING_KEY,
    VAULT,
    VECTORS,
    WRITER,
    Kem,
    fixed,
    key_chain,
    private_key,
    record_sessions,
    recorded_session,
)
from golden.specimens import READERS, long_list, specimens  # noqa: E402

from streamd.format import chunklist, crypto, envelope, state_sum  # noqa: E402
from streamd.format.chunker import Cutter  # noqa: E402
from streamd.format.frame import frame_aad  # noqa: E402
from streamd.format.keys import domain_keys  # noqa: E402
from streamd.format.slots import SlotKind  # noqa: E402

# libraries whose output bytes may change with their version although every version reads them all
ENCODERS = ("lz4", "zstandard", "msgspec", "cryptography", "pyfastcdc")


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that make bytes."""
    return {name: version(name) for name in ENCODERS}


def keys_used() -> dict[str, str]:
    """Return every key of the vectors, in hex."""
    found = {
        "vault": VAULT,
        "domain": DOMAIN,
        "writer": WRITER,
        "domain_secret": DOMAIN_SECRET,
        "writer_signing_key": SIGNING_KEY,
        "admin_signing_key": ADMIN_KEY,
        "key_encryption_key": KEK,
        "meta_private_mlkem768_x25519": private_key(Kem.MLKEM768_X25519, "META"),
        "data_private_mlkem768_x25519": private_key(Kem.MLKEM768_X25519, "DATA"),
        "data_private_x25519": private_key(Kem.X25519, "DATA"),
        "key_encryption_key_2": KEK_2,
        "slot_key_file": SECRETS[SlotKind.KEY_FILE],
    }
    return {name: value.hex() for name, value in found.items()} | {
        "recovery_code": RECOVERY_CODE,
        "passphrase": SECRETS[SlotKind.PASSPHRASE].decode(),
    }


def derivations() -> dict[str, Any]:
    """Return derived keys, ids and sums: the steps a reader can check one by one."""
    domain, chain, data = domain_keys(DOMAIN_SECRET), key_chain(), recorded_session("data")
    salt, chunk = fixed("origin 1", 16), b"raw chunk"
    ids = chain.domain_keys.chunk_id(chunk)
    return {
        "id_key": domain.id_key.hex(),
        "index_key": domain.index_key.hex(),
        "chunker_seed": domain.chunker_seed,
        "source_id_home": domain.source_id("home").hex(),
        "chunk_id_of_raw_chunk": ids.hex(),
        "writer_public": crypto.verify_key_of(SIGNING_KEY).hex(),
        "admin_public": crypto.verify_key_of(ADMIN_KEY).hex(),
        "frame_key_of_session_data_origin_1": crypto.derive(
            data.secret, salt=salt, info=b"streamd/v1/c"
        ).hex(),
        "frame_associated_data_of_raw_chunk": frame_aad(IDENTITY, 0, len(chunk), ids).hex(),
        "section_key_of_session_data_origin_1_tag_j": crypto.derive(
            data.secret, salt=salt, info=b"streamd/v1/section/j"
        ).hex(),
        "padme": {str(n): envelope.padme(n) for n in (0, 1, 9, 100, 1000, 65_537, 1_234_567)},
        "state_term_of_key_k_value_v": state_sum.to_bytes(state_sum.term(b"k", b"v")).hex(),
    }


def cuts() -> list[dict[str, Any]]:
    """Return the chunk sizes of some inputs; an input is BLAKE3(label) as long as said, or zeros."""
    found = []
    for label, size in (("zeros", 2_500_000), ("one", 3_000_000), ("two", 1_048_577), ("x", 1)):
        data = bytes(size) if label == "zeros" else fixed(f"cut {label}", size)
        for seed in (0, domain_keys(DOMAIN_SECRET).chunker_seed):
            sizes = Cutter(seed).cut(memoryview(data), final=True)
            found.append({"input": label, "size": size, "seed": seed, "chunks": sizes})
    return found


def content_tree() -> dict[str, Any]:
    """Return the tree of a content list of 1500 runs; run i is BLAKE3("run i") or a hole."""
    levels, top, _ = chunklist.paginate(long_list(), key_chain().domain_keys.chunk_id)
    return {"levels": levels, "top": [[r.id and r.id.hex(), r.size] for r in top]}


def manifest() -> dict[str, Any]:
    """Return what is known about every vector."""
    valid = [
        {
            "file": each.file,
            "reader": each.reader,
            "name": each.name,
            "size": len(each.data),
            "blake3": crypto.digest(each.data).hex(),
            "expected": READERS[each.reader](each.data, each.name),
        }
        for each in specimens().values()
    ]
    invalid = [
        {
            "file": f"invalid/{each.file}",
            "reader": each.reader,
            "name": each.name,
            "error": each.error,
            "why": each.why,
        }
        for each in invalid_objects()
    ]
    return {
        "about": "vectors of the streamd vault format 1; see docs/format.md",
        "encoders": versions(),
        "keys": keys_used(),
        "derivations": derivations(),
        "cuts": cuts(),
        "content_tree": content_tree(),
        "valid": valid,
        "invalid": invalid,
    }


def main() -> None:
    """Write everything."""
    (VECTORS / "invalid").mkdir(parents=True, exist_ok=True)
    if not SESSIONS.exists():
        record_sessions()
    for each in specimens().values():
        (VECTORS / each.file).write_bytes(each.data)
    for other in invalid_objects():
        (VECTORS / "invalid" / other.file).write_bytes(other.data)
    text = json.dumps(manifest(), indent=1, ensure_ascii=False) + "\n"
    (VECTORS / "manifest.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
