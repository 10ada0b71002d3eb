#!/usr/bin/env python3
"""Restore from a streamd vault without streamd.
    streamd-rescue.py list KEY [--vault PLACE]
    streamd-rescue.py ls | restore KEY [--vault PLACE] SOURCE [TARGET] [--path PATH]... [--at T] [--devices]
KEY: --kit FILE (the recovery kit; its code too if that is kept apart), --code-file, --passphrase-file,
--slot-key-file FILE (what opens a slot), or --key-file FILE (key file of a host that may restore).
PLACE: a directory, a file:// URL, or https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]?SAS (rights:
read and list); if left out, what the kit says. The SAS may stand in $STREAMD_SAS instead. TARGET is new or
empty. T: `latest`, `2026-11-20 14:03:05.25` (local time, or with an offset), or `@SECONDS` since 1970.
Needs Python 3.9, cryptography (48 or newer for post-quantum vaults), and lz4 and zstandard if the vault uses them,
as is usual. With blake3 it is much faster, and checks ids of chunks and state sums; every byte is authenticated
without it, too. Made from docs/format.md alone, without code of streamd; numbers in comments are its sections.
Exit codes: 0 complete; 2 usage; 3 some entries not restored; 4 no key opens the vault; 5 the storage refuses;
6 it cannot be reached; 7 damaged (what could be had was restored); 8 needs a newer reader; 9 not found.
"""
import argparse, base64, collections, concurrent.futures, contextlib, datetime, hashlib, heapq, hmac
import http.client, importlib.util, itertools, json, os, re, signal, sqlite3, stat, struct, sys, time, unicodedata
import urllib.error, urllib.parse, urllib.request, xml.etree.ElementTree as ET, zlib
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
fast_blake3 = importlib.import_module("blake3") if importlib.util.find_spec("blake3") else None

MIB = 1 << 20  # limits: 17
OBJECT_MAX = SECTION_MAX = 64 * MIB
HEADER_MAX, FRAME_MAX, WINDOW_MAX, SLOT_MAX, RING_MAX, JSON_MAX = MIB, 4 * MIB, 8 * MIB, 65_536, 16 * MIB, 4 * MIB
ROWS_MAX, RECORDS_MAX, PAGES_MAX, LEVELS_MAX, STRETCHES_MAX = 4096, 65_536, 65_536, 6, 64
VALUES_MAX, NESTING_MAX, DEPTH_MAX = 1 << 22, 64, 2048  # of one msgpack document; directories in directories
LATEST, ROOT_FID, DATA, META, INDEX = (1 << 63) - 1, 1, 1, 2, 3
SET, DEL, PATCH, MARK, GAP, STATE, RESET = 0, 1, 2, 3, 4, 7, 10
REGULAR, DIRECTORY, SYMLINK, FIFO, CHARACTER, BLOCK, SOCKET = 1, 2, 3, 4, 5, 6, 7

class Fault(Exception):
    """Something that ends the program, or costs what depends on it."""
    exit_code = 1
Usage, WrongKey, BadKeyFile, Refused, Unreachable, Damaged, Unsupported, NotFound = (
    type(name, (Fault,), {"exit_code": code}) for name, code in (("Usage", 2), ("WrongKey", 4), ("BadKeyFile", 4),
        ("Refused", 5), ("Unreachable", 6), ("Damaged", 7), ("Unsupported", 8), ("NotFound", 9)))
IN_PASSING = (Damaged, Unsupported, WrongKey)  # cost an object, not the whole run
def need(is_so, otherwise, kind=Damaged):
    if not is_so:
        raise kind(otherwise)
@contextlib.contextmanager
def turning(errors, what, kind=Damaged):
    """Turn foreign errors into one of ours."""
    try:
        yield
    except errors as error:
        raise kind(f"{what}: {error.strerror}" if isinstance(error, OSError) else what) from error

# -- hashes and keys (2, 5) -----------------------------------------------------------------------
IV = struct.unpack(">8I", bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"))
SHUFFLE = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
QUARTERS = [(i, 4 + (i + k) % 4, 8 + (i + 2 * k) % 4, 12 + (i + 3 * k) % 4) for k in (0, 1) for i in range(4)]
def compress(value, block, counter, flags):
    v = [*value, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    for _ in range(7):
        for n, (a, b, c, d) in enumerate(QUARTERS):
            for word, right, left in ((m[2 * n], 16, 12), (m[2 * n + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                mixed = v[d] ^ v[a]
                v[d] = (mixed >> right | mixed << 32 - right) & 0xFFFFFFFF
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                mixed = v[b] ^ v[c]
                v[b] = (mixed >> left | mixed << 32 - left) & 0xFFFFFFFF
        m = [m[index] for index in SHUFFLE]
    return struct.pack("<8I", *(v[i] ^ v[i + 8] for i in range(8)))
def slow_blake3(data, key=None, number=0, root=8):
    """BLAKE3 after its specification: right, and a thousand times slower than the package."""
    start, kind = (IV, 0) if key is None else (struct.unpack("<8I", key), 16)
    if len(data) > 1024:
        left = 1024 << ((len(data) - 1) // 1024).bit_length() - 1
        pair = slow_blake3(data[:left], key, number, 0) + slow_blake3(data[left:], key, number + left // 1024, 0)
        return compress(start, pair, 0, kind | 4 | root)
    for at in range(0, max(len(data), 1), 64):
        flags = kind | (at == 0) | (2 | root if at + 64 >= len(data) else 0)
        packed = compress(start, bytes(data[at : at + 64]), number, flags)
        start = struct.unpack("<8I", packed)
    return packed
def h(data, key=None):
    if fast_blake3 is None:
        return slow_blake3(data, key)
    return (fast_blake3.blake3(data) if key is None else fast_blake3.blake3(data, key=key)).digest()
def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()
def expand(prk, info, size=32):
    out = block = mac(prk, info + b"\x01")
    for number in range(2, -(-size // 32) + 1):
        out += (block := mac(prk, block + info + bytes((number,))))
    return out[:size]
def hkdf(secret, salt, info, size=32):
    return expand(mac(salt or bytes(32), secret), info, size)
def unseal(key, number, data, aad):
    with turning((InvalidTag, ValueError, OverflowError), "an encrypted part does not authenticate"):
        return AESGCM(key).decrypt(number.to_bytes(12, "big"), bytes(data), aad)
def is_signed(public, signature, message):
    with contextlib.suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
def hpke_open(kem, private, sealed, info):
    """RFC 9180, base mode, single shot (5.3)."""
    need(kem in (1, 2), f"key encapsulation {kem} is unknown to this reader", Unsupported)
    number, size = (b"\x00\x20", 32) if kem == 1 else (b"\x64\x7a", 1120)
    enc, suite = sealed[:size], b"HPKE-v1HPKE" + number + b"\x00\x01\x00\x02"
    with turning((InvalidTag, ValueError), "the private key does not open what was sealed", WrongKey):
        curve = X25519PrivateKey.from_private_bytes(private[-32:])
        shared = curve.exchange(X25519PublicKey.from_public_bytes(enc[-32:]))
        own = curve.public_key().public_bytes_raw()
        if kem == 1:
            prk = mac(bytes(32), b"HPKE-v1KEM" + number + b"eae_prk" + shared)
            shared = expand(prk, b"\x00\x20HPKE-v1KEM" + number + b"shared_secret" + enc + own)
        else:
            from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
            first = MLKEM768PrivateKey.from_seed_bytes(private[:-32]).decapsulate(enc[:-32])
            shared = hashlib.sha3_256(first + shared + enc[-32:] + own + b"\\.//^\\").digest()
        schedule = b"\0" + mac(bytes(32), suite + b"psk_id_hash") + mac(bytes(32), suite + b"info_hash" + info)
        secret = mac(shared, suite + b"secret")
        key = expand(secret, b"\x00\x20" + suite + b"key" + schedule)
        nonce = expand(secret, b"\x00\x0c" + suite + b"base_nonce" + schedule, 12)
        return AESGCM(key).decrypt(nonce, sealed[size:], b"")

# -- msgpack (2) ----------------------------------------------------------------------------------
class Unpacker:
    """A strict decoder: one value, no extensions, memory in proportion to the input."""
    def __init__(self, data):
        self.data, self.at, self.left = data, 0, VALUES_MAX
    def take(self, size):
        need(size <= len(self.data) - self.at, "a value is cut off")
        self.at += size
        return self.data[self.at - size : self.at]
    def number(self, size, signed=False):
        return int.from_bytes(self.take(size), "big", signed=signed)
    def value(self, depth=0):
        self.left -= 1
        need(self.left >= 0 and depth <= NESTING_MAX, "a value is absurdly large or nested")
        tag = self.number(1)
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 256
        if tag < 0xA0 or 0xDC <= tag <= 0xDF:
            count = tag & 15 if tag < 0xA0 else self.number(4 if tag & 1 else 2)
            if 0x90 <= tag < 0xDE:
                return [self.value(depth + 1) for _ in range(count)]
            pairs = ((self.value(depth + 1), self.value(depth + 1)) for _ in range(count))
            return {key: value for key, value in pairs if isinstance(key, (str, int, bytes))}
        if tag < 0xC0 or 0xD9 <= tag <= 0xDB:
            text = self.take(tag & 31 if tag < 0xC0 else self.number(1 << (tag - 0xD9)))
            with turning(UnicodeDecodeError, "a text is not UTF-8"):
                return bytes(text).decode("utf-8")
        if 0xC4 <= tag <= 0xC6:
            return bytes(self.take(self.number(1 << (tag - 0xC4))))
        if 0xCC <= tag <= 0xD3:
            return self.number(1 << (tag & 3), signed=tag >= 0xD0)
        if tag in (0xCA, 0xCB):
            return struct.unpack(">f" if tag == 0xCA else ">d", self.take(4 << (tag & 1)))[0]
        need(tag in (0xC0, 0xC2, 0xC3), "a value of an unknown type")
        return None if tag == 0xC0 else tag == 0xC3
def check(value, shape):
    """Return `value` if it has this shape: a type, {either}, [of each], a row (of, these, and more),
    or a map {"key": shape, "optional?": shape}, whose missing keys become 0 or empty (2)."""
    if isinstance(shape, (type, frozenset)):
        kinds = shape if isinstance(shape, type) else tuple(shape)
        need(isinstance(value, kinds) and not (shape is int and isinstance(value, bool)), "a value is of another type")
        return value
    need(isinstance(value, dict if isinstance(shape, dict) else list), "a value is of another type")
    if isinstance(shape, list):
        return [check(each, shape[0]) for each in value]
    if isinstance(shape, tuple):
        need(len(value) >= len(shape), "a row is too short")
        return tuple(check(each, kind) for each, kind in zip(value, shape))
    found = dict(value)
    for key, kind in shape.items():
        name, default = key.rstrip("?"), ([] if isinstance(kind, list) else kind()) if key[-1] == "?" else None
        found[name] = check(value.get(name, default), kind)
    return found
def unpack(data, shape):
    unpacker = Unpacker(data)
    value = unpacker.value()
    need(unpacker.at == len(data), "bytes stand behind a value")
    return check(value, shape)
def decompress(data, codec, size):  # 6.3
    need(0 <= size <= SECTION_MAX, "a part declares more than the format allows")
    need(codec in (0, 1, 2), f"compression {codec} is unknown to this reader", Unsupported)
    plain = data
    try:
        if codec == 1:
            plain = importlib.import_module("lz4.block").decompress(data, uncompressed_size=size)
        elif codec == 2:
            zstd = importlib.import_module("zstandard")
            need(zstd.frame_content_size(data) in (-1, size), "a part is not as long as it says")
            reader = zstd.ZstdDecompressor(max_window_size=WINDOW_MAX)
            plain = reader.decompress(data, max_output_size=size, allow_extra_data=False)
    except ImportError as error:
        raise Usage(f"the vault needs a package: pip install {error.name.split('.')[0]}") from error
    except Exception as error:  # LZ4BlockError and ZstdError cannot be named here
        raise Damaged("a part does not decompress") from error
    need(len(plain) == size, "a part is longer or shorter than it declares")
    return plain

# -- objects (6 to 12) ----------------------------------------------------------------------------
HEADER = {"v": bytes, "d": bytes, "w": bytes, "t": int, "ks?": [(int, int, int, int, bytes, bytes)],
          "sec?": [(str, int, int, int, int, int)], "og?": [(int, bytes)], "om?": [(int, bytes)],
          "src?": [bytes], **dict.fromkeys(("cf?", "r?", "e?", "s?", "t1?", "ack?", "g?"), int),
          **dict.fromkeys(("sa?", "p?", "nz?"), bytes), "why?": str}
MARKS, STATE_SUM, INFO = [(bytes, int, int, bytes)], (bytes, int), (str, [bytes])
PAGE, LIST_PAGE = [(bytes, bytes)], [(frozenset((bytes, type(None))), int)]
Frame = collections.namedtuple("Frame", "at stored plain codec origin ordinal ids sizes")
Version = collections.namedtuple("Version", "type mode uid gid user group mtime ctime btime size nlink rdev"
                                 " target xattrs profile levels content fhash flags")
def header_end(data):
    need(len(data) >= 20 and bytes(data[:8]) == b"STRMD\r\n\x1a", "not an object of streamd")
    need(data[9] == 1 and data[10] < 4 and not data[11], "an object of a newer format, or unknown flags", Unsupported)
    size = int.from_bytes(data[12:16], "little")
    need(size <= HEADER_MAX, "a header is longer than the format allows")
    return 20 + size

class Envelope:
    """An object, or its beginning: header and sections. With `publics`, one of them must have signed."""
    def __init__(self, data, kind, publics=None):
        self.hash = None if publics is None else self.verified(data, publics)
        end = header_end(data)
        need(data[8] == ord(kind), f"an object of another kind stands where {kind} belongs")
        self.data, self.head, self.sections = data, bytes(data[:end]), {}
        crc = int.from_bytes(data[16:20], "little")
        need(len(self.head) == end and zlib.crc32(self.head[20:]) == crc, "a header is damaged")
        self.header = unpack(self.head[20:], HEADER)
        for tag, offset, size, *how in self.header["sec"]:
            need(tag not in self.sections and offset == end and size >= 0, "sections do not stand back to back")
            self.sections[tag] = (offset, size, *how)
            end += size
        need(end <= OBJECT_MAX, "an object is longer than the format allows")
    @staticmethod
    def verified(data, publics):
        need(len(data) >= 120 and bytes(data[-4:]) == b"DMRT", "an object is cut off")
        hashed, signature = bytes(data[-100:-68]), bytes(data[-68:-4])
        need(h(data[:-100]) == hashed, "an object does not match its hash")
        message = b"streamd/v1/object|" + hashed
        need(any(is_signed(p, signature, message) for p in publics), "an object is not signed by its writer")
        return hashed
    def end_of(self, *tags):
        """Return where the last of these sections ends, as far as they are there."""
        return max((sum(self.sections[tag][:2]) for tag in tags if tag in self.sections), default=0)
    def plain(self, tag, secret_of):
        """Return a sealed section's plaintext (6.2); `secret_of` a row of the key table."""
        offset, size, source, codec, plain_size = self.sections.get(tag, (0, 0, -1, 0, 0))
        need(0 <= source < len(self.header["ks"]), f"the section {tag!r} is missing, or names no key")
        need(offset + size <= len(self.data), f"the section {tag!r} is cut off")
        key = key_from(self.header["ks"][source], secret_of, self.header["sa"], b"section/" + tag.encode())
        return decompress(unseal(key, 0, self.data[offset : offset + size], self.head), codec, plain_size)
def key_from(key_row, secret_of, salt, purpose):
    need(key_row[0] == 1, f"encryption suite {key_row[0]} is unknown to this reader", Unsupported)
    return hkdf(secret_of(key_row), salt, b"streamd/v1/" + purpose)
def frame_table(data, origin_count, section_size):  # 7.2
    n, *columns = unpack(data, (int, *[bytes] * 8))
    codecs, ids = columns.pop(4), columns.pop(5)
    fits = all(len(c) == 4 * k for c, k in zip(columns, (n, n, n, n, n, len(ids) // 32)))
    need(fits and len(codecs) == n and len(ids) % 32 == 0, "a frame table has columns of wrong length")
    *columns, sizes = [struct.unpack(f"<{len(column) // 4}I", column) for column in columns]
    found, at, first = [], 0, 0
    for codec, origin, ordinal, stored, plain, chunks in zip(codecs, *columns):
        need(origin < origin_count and plain <= FRAME_MAX, "a frame table names what there cannot be")
        end = first + chunks
        found.append(Frame(at, stored, plain, codec, origin, ordinal, ids[32 * first : 32 * end], sizes[first:end]))
        at, first = at + stored, end
    need(first == len(sizes) and (not found or at == section_size), "a frame table is not what the frames are")
    return found
def frames_of(envelope, role, secret_of):
    """Return (frames, offset of the first in the object, origins), or None if there are none."""
    is_pack, key_rows = envelope.head[8] == ord("P"), envelope.header["ks"]
    index, tag, table = ("i", "c", "og") if is_pack or role == DATA else ("mi", "m", "om")
    if index not in envelope.sections and not is_pack:
        return None
    need(tag in envelope.sections, "the frames are missing")
    origins, (offset, size) = envelope.header[table], envelope.sections[tag][:2]
    need(all(0 <= number < len(key_rows) for number, _ in origins), "an origin names no key")
    found = frame_table(envelope.plain(index, secret_of), len(origins), size)
    return found, offset, [(key_rows[number], salt) for number, salt in origins]
def open_frame(frame, origin, data, identity, id_key, secret_of):
    """Return a frame's plaintext (7.1)."""
    key = key_from(origin[0], secret_of, origin[1], b"c")
    aad = identity + bytes((frame.codec,)) + frame.plain.to_bytes(4, "big") + h(frame.ids)
    plain = bytes(decompress(unseal(key, frame.ordinal, data, aad), frame.codec, frame.plain))
    ends = list(itertools.accumulate(frame.sizes, initial=0))
    need(ends[-1] == len(plain), "chunk sizes do not fill their frame")
    for i, size in enumerate(frame.sizes if fast_blake3 is not None else ()):
        identifier = h(plain[ends[i] : ends[i] + size], id_key)
        need(identifier == frame.ids[32 * i : 32 * i + 32], "a chunk does not match its id")
    return plain

class Segment(Envelope):  # 9.1, 9.2
    def __init__(self, data, publics):
        super().__init__(data, "J", publics)
        self.previous, self.sources = self.header["p"], self.header["src"]
        self.start, self.position = self.header["t"], (self.header["e"], self.header["s"])
    def records(self, secret_of):
        found = unpack(self.plain("j", secret_of), [(int, int, int, bytes, bytes)])
        times = [0, *(dt for _, dt, _, _, _ in found)]
        need(len(found) <= RECORDS_MAX and times == sorted(times), "too many records, or out of order")
        need(all(-1 <= row[2] < len(self.sources) for row in found), "a record names no source")
        return found
def read_checkpoint(data, publics, secret_of):  # 10
    envelope, shape = Envelope(data, "C", publics), (bytes, int, MARKS, STATE_SUM, bytes, [(bytes, bytes, int)])
    source, at, marks, _, merkle, pages = root = unpack(envelope.plain("c", secret_of), shape)
    is_whole = len(pages) <= PAGES_MAX and merkle == h(b"".join(page for _, page, _ in pages))
    says = [[source], at] == [envelope.header["src"], envelope.header["t"]]
    need(is_whole and says, "a checkpoint contradicts itself, or its header")
    return root
def read_page(data, shape):
    """A page of a checkpoint (10) or of a chunk list (9.6)."""
    found = unpack(data, shape)
    need(0 < len(found) <= ROWS_MAX, "a page has an impossible length")
    return found
def read_version(data):  # 9.3
    return Version(*unpack(data, (int, int, int, int, bytes, bytes, *[int] * 6, bytes, [(bytes, bytes)],
                                  int, int, LIST_PAGE, bytes, int)))

# -- signed JSON, slots, ring, kit, key file (11, 5.4) --------------------------------------------
def parse_json(data, shape):
    with turning((ValueError, RecursionError), "a JSON document does not parse"):
        return check(json.loads(bytes(data).decode("utf-8")), shape)
def read_signed(data, admin, shape):
    """Return the body of signed JSON, authenticated by its bytes as they stand (11.1)."""
    need(parse_json(data, dict), "not a signed document")
    text, scan, blank = bytes(data).decode("utf-8"), json.JSONDecoder().raw_decode, re.compile(r"\s*")
    at, parts = text.index("{"), {}
    while text[at] != "}":
        key, at = scan(text, blank.match(text, at + 1).end())
        start = blank.match(text, text.index(":", at) + 1).end()
        _, end = scan(text, start)
        need(key not in parts, "a signed document says something twice")
        parts[key], at = text[start:end], blank.match(text, end).end()
    body, sig = parts.get("body", "").encode(), parts.get("sig", "")
    need(re.fullmatch('"[0-9a-f]{128}"', sig), "a signature is missing, or in another spelling")
    message, sig = b"streamd/v1/json|" + body, bytes.fromhex(sig[1:-1])
    need(is_signed(admin, sig, message), "a document is not signed by the vault's admin key")
    return parse_json(body, shape)
def read_config(data, admin):
    body = read_signed(data, admin, {"format": str, "major": int, "features": {"read?": [str]}})
    is_known = (body["format"], body["major"], body["features"]["read"]) == ("streamd-vault", 1, [])
    need(is_known, f"the vault has features that need a newer reader: {body['features']}", Unsupported)
    texts = dict.fromkeys(("id", "created", "admin_public", "specification", "ring?"), str)
    body = check(body, {**texts, "number": int, "suite": dict, "domains": dict})
    check(list(body["domains"].values()), [[str]])
    return body
def read_certificate(data, admin):
    texts = dict.fromkeys(("vault", "domain", "writer", "public", "host", "created"), str)
    body = read_signed(data, admin, {**texts, "number": int, "revoked_from_us?": int})
    need(re.fullmatch("[0-9a-f]{64}", body["public"]), "a certificate's key does not parse")
    return body
def binary(value):
    """Return the bytes of base64; of a map, those of its values."""
    if isinstance(value, dict):
        return {int(key) if key.isdecimal() else key: binary(each) for key, each in value.items()}
    with turning((ValueError, AttributeError), "base64 is missing or does not parse"):
        return value if isinstance(value, int) else base64.b64decode(value.encode("ascii"), validate=True)
def read_slot(data, vault):
    slot = parse_json(data, {**dict.fromkeys(("kind", "vault", "kdf", "salt"), str),
                             **dict.fromkeys(("wrapped?", "id?", "label?", "created?", "sealed?"), str),
                             **dict.fromkeys(("iterations", "lanes", "memory_kib", "edition?", "kem?"), int)})
    need(vault in (None, binary(slot["vault"])), "a key slot belongs to another vault")
    need(slot["kdf"] == "argon2id" and 0 <= slot["edition"] < 1 << 32, "a key slot has impossible parameters")
    return slot
def open_slot(slot, secret, known):
    """Return the key encryption key (11.4)."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    how = rounds, lanes, memory, salt = slot["iterations"], slot["lanes"], slot["memory_kib"], binary(slot["salt"])
    sane = 1 <= rounds <= 16 and 1 <= lanes <= 64 and 8 * lanes <= memory <= MIB and len(salt) >= 8
    need(sane, "a key slot has impossible parameters")
    if how not in known:
        argon = Argon2id(salt=salt, length=32, iterations=rounds, lanes=lanes, memory_cost=memory)
        known[how] = argon.derive(secret)
    key, vault = known[how], binary(slot["vault"])
    if slot["sealed"]:
        texts = "\0".join(slot[name] for name in ("kind", "id", "label", "created")).encode()
        info = b"streamd/v1/slot|" + vault + slot["edition"].to_bytes(4, "big") + texts
        private = hkdf(key, b"", b"streamd/v1/slot-key", 32 if slot["kem"] == 1 else 96)
        return hpke_open(slot["kem"], private, binary(slot["sealed"]), info)
    with turning(Damaged, "what was given does not open this slot", WrongKey):
        return unseal(key, 0, binary(slot["wrapped"]), b"streamd/v1/slot|" + vault + slot["kind"].encode())
def check_rings(rings):
    """Return (private, public) of a ring or key file, types checked."""
    private = {"kem": int, "meta": dict, "data": dict, "admin": bytes, "domains": dict}
    public = {"kem": int, "generation": int, "meta": bytes, "data": bytes, "admin": bytes}
    private, public = check(rings, {"private": private, "public": public})["private"], rings["public"]
    check([key for table in ("meta", "data", "domains") for key in private[table].values()], [bytes])
    return private, public
def read_ring(data, vault, kek):
    """11.3: opened with the KEK, then checked with the admin key that is inside."""
    envelope = Envelope(data, "K")
    private, public = check_rings(unpack(envelope.plain("k", lambda _: kek), dict))
    need(envelope.header["v"] == vault, "a key ring belongs to another vault")
    Envelope(data, "K", [public["admin"]])
    return private, public
def read_kit(data):
    """Return the fields of a recovery kit, and its copies of the slot and the ring (11.6)."""
    with turning((UnicodeDecodeError, Damaged), "this is no recovery kit, or not all of it", Usage):
        text = data.decode("utf-8").replace("\r\n", "\n")
        lines = re.findall("(?m)^(format|vault|url|admin|slot|recovery-code|created): *(.*?) *$", text)
        blocks = re.findall("-----BEGIN STREAMD (SLOT|RING)-----([A-Za-z0-9+/=\\s]*)-----END STREAMD \\1-----", text)
        found = {**dict(lines), **{name: binary("".join(body.split())) for name, body in blocks}}
        found["vault"], found["admin"] = (from_base32(found.get(name, "")) or b"" for name in ("vault", "admin"))
        whole = len({*dict(lines)}) == len(lines) and text.count("-BEGIN STREAMD ") == len({*dict(blocks)})
        says = (len(found["vault"]), len(found["admin"]), found.get("format"), bool(found.get("url")))
        need(whole and says == (16, 32 if dict(lines).get("admin") else 0, "1", True), "")
        return found
def read_key_file(data):
    """Return (vault, private, public) of a host's key file (5.4)."""
    sizes = {"vault": 16, "domain": 16, "writer": 16, "signing_key": 32, "domain_secret": 32}
    none = {"kem": 0, "meta": {}, "data": {}, "admin": "", "domains": {}}
    with turning(Damaged, "the key file does not parse", BadKeyFile):
        body = parse_json(data, {"format": str, "major": int, "public": dict})
        raw = {name: binary(body.get(name)) for name in sizes}
        rings = {"public": body["public"], "private": {**(body.get("private") or none), "slots": {}}}
        private, public = check_rings(binary(rings))
    fits = [len(raw[name]) for name in sizes] == [*sizes.values()] and len(public["admin"]) == 32
    is_one = fits and (body["format"], body["major"]) == ("streamd-host-key", 1)
    need(is_one, "the key file is damaged, or of another format", BadKeyFile)
    private["domains"].setdefault(base32(raw["domain"]), raw["domain_secret"])
    return raw["vault"], private, public

class Keys:
    """What a row of a key table stands for (5.2)."""
    def __init__(self, vault, private, admin):
        self.vault, self.admin, self.known = vault, admin, {}
        self.private = {META: private["meta"], DATA: private["data"]}
        self.domains = {from_base32(text): secret for text, secret in private["domains"].items()}
    def secret_of(self, key_row, domain):
        _, kem, role, generation, session, sealed = key_row
        if role == INDEX:
            return hkdf(self.domains[domain], b"", b"streamd/v1/index")
        if key_row not in self.known:
            private = self.private.get(role, {}).get(generation)
            need(private is not None, "the keys at hand do not open this part of the vault", WrongKey)
            info = b"streamd/v1/session|" + self.vault + bytes((role,)) + generation.to_bytes(4, "big") + session
            self.known[key_row] = hpke_open(kem, private, sealed, info)
        return self.known[key_row]

# -- storage and names (4) ------------------------------------------------------------------------
def base32(raw):
    return base64.b32encode(raw).decode("ascii").rstrip("=").lower()
def from_base32(text):
    """Return the bytes, or None if this is not the one spelling of any."""
    with contextlib.suppress(ValueError):
        raw = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
        return raw if base32(raw) == text else None

class Directory:
    """A vault in a directory. What is no regular file there is passed over."""
    workers = 1
    def __init__(self, path):
        self.path = path
        need(os.path.isdir(path), f"{path} is no directory", NotFound)
    def list(self, prefix):
        """Yield (name, size) of what begins so."""
        top = os.path.join(self.path, os.path.dirname(prefix))
        def failed(error):
            need(not os.path.isdir(top), f"{error.filename}: {error.strerror}", Unreachable)
        for folder, _, files in os.walk(top, onerror=failed):
            for path in (os.path.join(folder, file) for file in files):
                name, status = os.path.relpath(path, self.path), os.lstat(path)
                if name.startswith(prefix) and stat.S_ISREG(status.st_mode):
                    yield name, status.st_size
    def read(self, name, offset, size):
        with turning(OSError, "it cannot be read"):
            handle = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(handle, "rb") as file:
                data = os.pread(file.fileno(), size, offset)
        need(len(data) == size, "it is cut off")
        return data

class Container:
    """A vault in an Azure container, read with a SAS. The SAS is never shown."""
    workers = 8
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        names = [part for part in parts.path.split("/") if part]
        is_local = re.fullmatch(r"localhost|[0-9.]+|[0-9a-f:]*:[0-9a-f:]*", parts.hostname or "")
        depth = 2 if is_local else 1  # an emulator has the account in the path
        need(len(names) >= depth and (parts.scheme == "https" or is_local), "this is no URL of a container", Usage)
        self.base = f"{parts.scheme}://{parts.netloc}/" + "/".join(names[:depth])
        self.prefix = "".join(name + "/" for name in names[depth:])
        self.sas = (parts.query or os.environ.get("STREAMD_SAS", "")).strip().lstrip("?")
        stay = type("Stay", (urllib.request.HTTPRedirectHandler,), {"redirect_request": lambda *_: None})
        self.opener = urllib.request.build_opener(stay)
    def get(self, path, query, headers, limit):
        url, what = f"{self.base}{path}?" + "&".join(part for part in (query, self.sas) if part), ""
        for attempt in range(6):
            time.sleep(min(30, 2**attempt / 2) if attempt else 0)
            request = urllib.request.Request(url, headers={"x-ms-version": "2021-12-02", **headers})
            try:
                with self.opener.open(request, timeout=60) as answer:
                    data = answer.read(limit + 1)
                need(len(data) <= limit, "the storage answers with more than was asked for")
                return data
            except urllib.error.HTTPError as error:
                what = f"{error.code} {error.headers.get('x-ms-error-code') or error.reason}"
                need(error.code not in (404, 416) or not path, f"it is missing or cut off: {what}")
                need(error.code in (408, 429) or error.code >= 500, f"refused: {what}; is the SAS right?", Refused)
            except (OSError, http.client.HTTPException) as error:
                what = str(getattr(error, "reason", "")) or type(error).__name__
        raise Unreachable(f"the storage cannot be reached: {what}")
    def list(self, prefix):
        terms = {"restype": "container", "comp": "list", "prefix": self.prefix + prefix}
        while True:
            data = self.get("", urllib.parse.urlencode(terms), {}, 64 * MIB)
            need(b"<!" not in data, "the storage's listing holds declarations")
            with turning((ET.ParseError, ValueError), "the storage's listing does not parse"):
                found = ET.fromstring(data.decode("utf-8-sig"))
                blobs = [(blob.findtext("Name", "")[len(self.prefix) :],
                          int(blob.findtext("Properties/Content-Length", ""))) for blob in found.iter("Blob")]
            yield from blobs
            terms["marker"] = found.findtext("NextMarker", "")
            if not terms["marker"]:
                return
    def read(self, name, offset, size):
        span = {"x-ms-range": f"bytes={offset}-{offset + size - 1}"}
        data = self.get("/" + urllib.parse.quote(self.prefix + name), "", span, size) if size else b""
        need(len(data) == size, "it is cut off")
        return data
def ahead(store, work, items):
    """Yield (item, result or Fault) in order, some of them worked on at the same time."""
    def attempt(item):
        try:
            return item, work(item)
        except IN_PASSING as fault:
            return item, fault
    with concurrent.futures.ThreadPoolExecutor(store.workers) as pool:
        for start in range(0, len(items), store.workers):
            yield from pool.map(attempt, items[start : start + store.workers])

# -- the vault ------------------------------------------------------------------------------------
class Report:
    """What went wrong on the way, on standard error."""
    damages = refusals = 0
    def damage(self, name, fault):
        self.damages += 1
        print(f"damaged: {name}: {fault}", file=sys.stderr)
    def refuse(self, path, why):
        self.refusals += 1
        print(f"not restored: {show(path)}: {why}", file=sys.stderr)
    @contextlib.contextmanager
    def noting(self, name):
        """Go on after damage to an object."""
        try:
            yield
        except IN_PASSING as fault:
            self.damage(name, fault)

class Vault:
    """One domain of an open vault."""
    def __init__(self, store, keys, domain, report):
        self.store, self.keys, self.domain, self.report = store, keys, domain, report
        self.identity, self.top = keys.vault + domain, f"d/{base32(domain)}/"
        self.id_key = hkdf(keys.domains[domain], b"", b"streamd/v1/id")
        self.writers, self.index, self.origins, self.key_rows = {}, None, [], {}
        self.plain = collections.OrderedDict()
    def secret_of(self, key_row):
        return self.keys.secret_of(key_row, self.domain)
    def names(self, folder, form):
        """Return [(groups, name, size)] of the names of one form, in order; others are passed over."""
        form, found = re.compile(self.top + folder + form), []
        for name, size in self.store.list(self.top + folder):
            match = form.fullmatch(name)
            if match and size <= OBJECT_MAX and all(map(from_base32, match.groupdict().values())):
                found.append((match.groups(), name, size))
        return sorted(found)
    def add_writer(self, text):
        """Learn a writer's keys; of one key, the certificate of the highest number counts (11.2)."""
        for name, size in sorted(self.store.list(f"w/{text}/cert-")):
            with self.report.noting(name):
                body = read_certificate(self.store.read(name, 0, min(size, JSON_MAX)), self.keys.admin)
                place = [body["vault"], body["domain"], f"w/{body['writer']}/cert-{body['number']:04x}.json"]
                if place == [base32(self.keys.vault), base32(self.domain), name]:
                    known = self.writers.setdefault(from_base32(text), {})
                    known[bytes.fromhex(body["public"])] = body["revoked_from_us"] or LATEST
    def publics_of(self, data, kind):
        """Return the keys that may have signed an object; check that it belongs here (6.5, 11.2)."""
        head = Envelope(data, kind).header
        ours = (head["v"], head["d"]) == (self.keys.vault, self.domain) and head["w"] in self.writers
        need(ours, "an object of another vault, or of no writer of this domain")
        return [public for public, until in self.writers[head["w"]].items() if head["t"] < until]
    def load_index(self):
        self.index, number = sqlite3.connect("", isolation_level=None), 0
        self.index.executescript("CREATE TABLE chunk (id BLOB, frame INTEGER, at INTEGER, size INTEGER); CREATE TABLE"
            " frame (n INTEGER PRIMARY KEY, name, at, stored, plain, codec, origin, ordinal, ids, sizes); BEGIN")
        packs = self.names("p/", r"([a-z2-7]{2})/(?P<id>\1[a-z2-7]{50})")
        segments = self.names("j/", "(?P<w>[a-z2-7]{26})/[0-9a-f]{8}/[0-9a-f]{12}")
        for (_, name, _), held in ahead(self.store, self.read_index, packs + segments):
            if isinstance(held, Fault):
                self.report.damage(name, held)
                continue
            for frames, start, origins in held:
                first = len(self.origins)
                self.origins += [(self.key_rows.setdefault(r, r), salt) for r, salt in origins]
                for number, f in enumerate(frames, number + 1):
                    self.index.execute("INSERT INTO frame VALUES (?,?,?,?,?,?,?,?,?,?)", (number, name, start + f.at,
                        *f[1:4], first + f.origin, f.ordinal, f.ids, struct.pack(f"<{len(f.sizes)}I", *f.sizes)))
                    spans = enumerate(zip(itertools.accumulate(f.sizes, initial=0), f.sizes))
                    self.index.executemany("INSERT INTO chunk VALUES (?,?,?,?)", (
                        (f.ids[32 * i : 32 * i + 32], number, at, size) for i, (at, size) in spans))
        self.index.execute("CREATE INDEX by_id ON chunk (id)")
    def read_index(self, item):
        """Return the frame tables of an object, from its beginning (8)."""
        _, name, size = item
        kind, tags = ("J", ("i", "mi")) if name[len(self.top)] == "j" else ("P", ("i",))
        for limit in (min(size, MIB // 4), size):
            data = self.store.read(name, 0, limit)
            if header_end(data) <= limit and Envelope(data, kind).end_of(*tags) <= limit:
                break
        envelope = Envelope(data, kind)
        roles = (DATA, META) if kind == "J" else (envelope.header["r"],)
        need({*roles} <= {DATA, META}, "frames of no known role")
        return [held for held in (frames_of(envelope, role, self.secret_of) for role in roles) if held]
    def chunk(self, wanted):
        """Return a chunk's bytes, from whichever object has it whole."""
        if self.index is None:
            self.load_index()
        query = "SELECT frame, at, size FROM chunk WHERE id = ? ORDER BY frame"
        for number, at, size in self.index.execute(query, (wanted,)).fetchall():
            if number not in self.plain:
                self.plain[number] = self.open(number)
                if len(self.plain) > 32:
                    self.plain.popitem(last=False)
            if self.plain[number] is not None:
                return self.plain[number][at : at + size]
        raise Damaged("a chunk is nowhere in the vault")
    def open(self, number):
        _, name, at, stored, *how, sizes = self.index.execute("SELECT * FROM frame WHERE n = ?", (number,)).fetchone()
        frame = Frame(at, stored, *how, struct.unpack(f"<{len(sizes) // 4}I", sizes))
        with self.report.noting(name):
            data = self.store.read(name, at, stored)
            return open_frame(frame, self.origins[frame.origin], data, self.identity, self.id_key, self.secret_of)
    def runs(self, listed, level):
        """Yield a file's (chunk id or None, size) in order, lists of lists resolved (9.6)."""
        need(0 <= level <= LEVELS_MAX, "a chunk list is absurdly deep")
        for identifier, size in listed:
            need(size > 0 and (identifier is None or len(identifier) == 32), "a chunk list has an impossible run")
            page = read_page(self.chunk(identifier or b""), LIST_PAGE) if level else [(identifier, size)]
            need(sum(part for _, part in page) == size, "a page of a chunk list is not what its run says")
            yield from self.runs(page, level - 1) if level else page
    def journal(self, writer, mark, until, faults):
        """Yield the segments of a journal behind `mark`, up to the first fault (9.7)."""
        listed = [((int(epoch, 16), int(seq, 16)), name, size) for (epoch, seq), name, size
                  in self.names(f"j/{base32(writer)}/", "([0-9a-f]{8})/([0-9a-f]{12})")]
        last, previous = (tuple(mark[1:3]), mark[3]) if mark else (None, None)
        listed = [item for item in listed if last is None or item[0] > last]
        for (at, name, _), segment in ahead(self.store, self.segment, listed):
            fault = segment if isinstance(segment, Fault) else None
            if last and at != (last[0], last[1] + 1) and not (at[0] > last[0] and at[1] == 0):
                fault = Damaged("segments before it are missing")
            elif fault is None and segment.start > until:
                return
            elif fault is None and previous not in (None, segment.previous):
                fault = Damaged("it does not continue the segment before it")
            if fault is not None:
                return faults.append((name, fault))
            last, previous = at, segment.hash
            yield segment
    def segment(self, item):
        position, name, size = item
        data = self.store.read(name, 0, size)
        segment = Segment(data, self.publics_of(data, "J"))
        need((*segment.position, base32(segment.header["w"])) == (*position, name.split("/")[3]), "not its name")
        segment.data = data[: segment.end_of("j")]  # the frames are not needed here
        return segment
    def checkpoints(self, source):
        """Return [(ms, name, size)] of a source's checkpoints, oldest first."""
        listed = self.names(f"c/{base32(source)}/", "([0-9a-f]{13})-(?P<id>[a-z2-7]{13})")
        return [(int(ms, 16), name, size) for (ms, _), name, size in listed]
    def load(self, source, ms, name, size):
        """Return the state that a checkpoint holds (10)."""
        data = self.store.read(name, 0, size)
        who, at, marks, _, _, pages = read_checkpoint(data, self.publics_of(data, "C"), self.secret_of)
        need((who, at // 1000) == (source, ms), "it stands under another checkpoint's name")
        state = State(at, marks, self.report)
        for _, page, _ in pages:
            for key, value in read_page(self.chunk(page), PAGE):
                state.set(key, value)
        return state
    def state_at(self, source, at):
        """Return the state of a source at an instant (10)."""
        kept, faults, whole, base = self.checkpoints(source), [], True, None
        for ms, name, size in reversed([each for each in kept if each[0] * 1000 <= at]):
            with self.report.noting(name):
                found = self.load(source, ms, name, size) if base is None else None
                base = found if found and found.at <= at else base
        state = base or State(0, (), self.report)
        marks, start, begun = {mark[0]: mark for mark in state.marks}, state.at, {mark[0] for mark in state.marks}
        readings = (zip(self.journal(w, marks.get(w), at, faults), itertools.repeat(w)) for w in sorted(self.writers))
        for segment, writer in heapq.merge(*readings, key=lambda step: (step[0].start, step[1])):
            if faults:
                break
            whole = whole and (writer in begun or segment.previous == bytes(32))
            begun.add(writer)
            number = segment.sources.index(source) if source in segment.sources else -2
            after = start - segment.start if base and writer not in marks else -1
            for op, dt, which, key, value in segment.records(self.secret_of) if number >= 0 else ():
                if which == number and after < dt <= at - segment.start:
                    state.at = max(state.at, segment.start + dt)
                    state.apply(op, key, value, "segment {:x}/{:x}".format(*segment.position))
        is_thinned = faults and any(ms * 1000 > state.at for ms, _, _ in kept)
        for name, fault in () if base and is_thinned else faults:
            self.report.damage(name, fault)
        is_proven = base or ((whole or state.proven) and state.get(b"s"))
        need(is_proven, "nothing of this source is kept from that instant or before", NotFound)
        if is_thinned:  # a hole in front of a checkpoint: the journal was let go of
            print(f"note: the newest that is kept before then is of {when(state.at)}", file=sys.stderr)
        return state

class State:
    """Keys and values of a source in a temporary database (9.3), with their sum (9.5)."""
    def __init__(self, at, marks, report):
        self.at, self.marks, self.report, self.proven = at, marks, report, False
        self.total, self.count, self.db = 0, 0, sqlite3.connect("", isolation_level=None)
        self.db.execute("CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.db.execute("BEGIN")
    def get(self, key):
        return self.db.execute("SELECT (SELECT value FROM row WHERE key = ?)", (key,)).fetchone()[0]
    def set(self, key, value):
        """Put a value, or remove the key if it is None."""
        for each, sign in ((self.get(key), -1), (value, 1)):
            if each is not None:
                self.count += sign
                term = h(len(key).to_bytes(4, "little") + key + each) if fast_blake3 is not None else b""
                self.total += sign * int.from_bytes(term, "little")
        self.db.execute("DELETE FROM row WHERE key = ?", (key,))
        self.db.executemany("INSERT INTO row VALUES (?, ?)", [] if value is None else [(key, value)])
    def apply(self, op, key, value, where):
        need(op in range(11) and op != PATCH, f"a record of kind {op} is unknown to this reader", Unsupported)
        if op in (SET, DEL):
            self.set(key, value if op == SET else None)
        elif op == RESET:
            self.db.execute("DELETE FROM row")
            self.total = self.count = 0
        elif op == STATE and fast_blake3 is not None:
            with self.report.noting(where):
                mine = ((self.total % (1 << 256)).to_bytes(32, "little"), self.count)
                need(unpack(value, STATE_SUM) == mine, "the state is not what its writer had")
                self.proven = True
    def version(self, fid):
        value = self.get(b"f" + fid.to_bytes(8, "big"))
        return None if value is None else read_version(value)
    def children(self, fid):
        """Return [(name, fid, type)] of a directory's entries, by name."""
        low, found = b"d" + fid.to_bytes(8, "big"), []
        query = "SELECT key, value FROM row WHERE key > ? AND key < ? AND substr(key, 1, 9) = ? ORDER BY key"
        for key, value in self.db.execute(query, (low, low + b"\xff" * 4097, low)).fetchall():
            with self.report.noting(f"the entry {show(key[9:])}"):
                child, kind = unpack(value, (int, int))
                need(0 <= child < 1 << 64, "a file has an impossible number")
                found.append((key[9:], child, kind))
        return found
    def find(self, path):
        """Return [(path, fid, type)] of what an absolute path names; the empty one is all roots."""
        roots = self.children(ROOT_FID)
        for name, fid, kind in sorted(roots, key=lambda root: -len(root[0])) if path else ():
            if (path + b"/").startswith(name.rstrip(b"/") + b"/"):
                for part in filter(None, path[len(name) :].split(b"/")):
                    below = {n: (f, k) for n, f, k in self.children(fid)} if kind == DIRECTORY else {}
                    fid, kind = below.get(part, (0, 0))
                if kind:
                    return [(path.rstrip(b"/") or path, fid, kind)]
        return need(not path, f"{show(path)} was not there at that time, or is not absolute", NotFound) or roots

# -- writing below the target, and nowhere else ---------------------------------------------------
NODES = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}
def fault_of(parts):
    """Return why this cannot be a path below the target, or nothing."""
    is_bad = any(part in (b"", b".", b"..") or b"/" in part or b"\0" in part or len(part) > 255 for part in parts)
    return "its path could lead out of the target, or is too long" if is_bad or len(parts) > DEPTH_MAX else ""
def walk(state, tops):
    """Yield (path, parts below it, fid, type): directories first, none of them twice."""
    stack, entered = [(top, [], fid, kind) for top, fid, kind in reversed(tops)], set()
    while stack:
        path, parts, fid, kind = stack.pop()
        is_twice = kind == DIRECTORY and fid in entered
        yield path, parts, fid, 0 if is_twice else kind
        if kind == DIRECTORY and not is_twice and len(parts) <= DEPTH_MAX:
            entered.add(fid)
            stack += [(path.rstrip(b"/") + b"/" + n, [*parts, n], f, k) for n, f, k in reversed(state.children(fid))]

class Restore:
    """Lays out what was asked for in an empty target: one thing becomes it, several keep their paths.
    Only we can look into it meanwhile, and links are made last, when nothing is put below them any more."""
    def __init__(self, vault, options):
        self.vault, self.report, self.devices, self.leaders, self.count = vault, vault.report, options.devices, {}, 0
        self.target, self.privileged = os.fsencode(options.target), os.geteuid() == 0
        with turning(OSError, f"{options.target} cannot be used", Usage):
            os.makedirs(self.target, exist_ok=True)
            need(not os.listdir(self.target), "TARGET must be new or empty", Usage)
            os.chmod(self.target, 0o700)
    def run(self, state, tops):
        links, directories = [], []
        for top, *entry in tops:
            above = [part for part in top.split(b"/") if part]
            above = above if len(tops) > 1 else [] if entry[1] == DIRECTORY else above[-1:]
            for path, parts, fid, kind in walk(state, [(top, *entry)]):
                place, why = os.path.join(self.target, *above, *parts), fault_of(above + parts)
                if why or (kind in (CHARACTER, BLOCK) and not self.devices):
                    self.report.refuse(path, why or "a device; say --devices to restore those")
                    continue
                done = self.guarded(path, self.make, place, fid, kind, state, kind == SYMLINK)
                links += [(path, place, fid, kind)] if done and kind == SYMLINK else []
                directories += [(path, place, fid)] if done and kind == DIRECTORY else []
        for path, *entry in links:
            self.guarded(path, self.make, *entry, state)
        for path, place, fid in reversed(directories):
            self.guarded(path, self.describe, place, state.version(fid), path)
        print(f"{self.count} files restored, as of {when(state.at)}")
    def guarded(self, path, work, *args):
        try:
            work(*args)
            return True
        except IN_PASSING as fault:
            self.report.damage("content", f"{show(path)}: {fault}")
        except (OSError, ValueError, OverflowError) as error:
            self.report.refuse(path, getattr(error, "strerror", None) or error)
        return False
    def make(self, place, fid, kind, state, only_the_way=False):
        version = state.version(fid)
        need(version is not None and version.type == kind in range(1, 8), "its version is missing, or of another type")
        os.makedirs(place if kind == DIRECTORY else os.path.dirname(place), 0o700, exist_ok=True)
        if kind == DIRECTORY or only_the_way:
            return
        self.count += 1
        if fid in self.leaders and version.nlink > 1:
            os.link(self.leaders[fid], place, follow_symlinks=False)
            return
        if kind == REGULAR:
            self.file(place, version)
        elif kind == SYMLINK:
            os.symlink(version.target, place)
        else:
            os.mknod(place, NODES[kind] | 0o600, version.rdev)
        self.leaders[fid] = place
        self.describe(place, version, place)
    def file(self, place, version):
        with open(place, "xb") as file, contextlib.ExitStack() as undo:
            undo.callback(os.unlink, place)  # nothing half-made remains
            for identifier, size in self.vault.runs(version.content, version.levels):
                need(file.tell() + size <= version.size, "a chunk list is longer than its file")
                data = b"" if identifier is None else self.vault.chunk(identifier)
                need(identifier is None or len(data) == size, "a chunk is not as long as its run")
                file.seek(size - file.write(data), os.SEEK_CUR)
            need(file.tell() == version.size, "a chunk list is shorter than its file")
            file.truncate(version.size)
            undo.pop_all()
    def describe(self, place, version, path):
        """Owner first, which clears mode bits; times last."""
        mode = version.mode & 0o7777
        if self.privileged:
            os.chown(place, version.uid, version.gid, follow_symlinks=False)
        elif (version.uid, version.gid) != (os.geteuid(), os.getegid()):
            mode &= 0o1777  # another's set-id bits are not ours to give
        if version.type != SYMLINK:
            os.chmod(place, mode)
        for name, value in version.xattrs if self.privileged or version.type != SYMLINK else ():
            self.guarded(path + b": " + name, lambda n=name, v=value: os.setxattr(place, n, v, follow_symlinks=False))
        os.utime(place, ns=(version.mtime, version.mtime), follow_symlinks=False)

# -- the command line -----------------------------------------------------------------------------
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
def show(path):
    """Return bytes as text that is safe on a terminal."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
def when(us):
    with contextlib.suppress(OverflowError, ValueError):
        return (EPOCH + datetime.timedelta(microseconds=us)).astimezone().isoformat()
    return f"@{us // 1_000_000}"
def instant(text):
    with turning((ValueError, OverflowError), f"{text!r} is no instant: write `2026-11-20 14:03:05`", Usage):
        if text == "latest" or text.startswith("@"):
            return LATEST if text == "latest" else round(float(text[1:]) * 1e6)
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(datetime.timezone.utc)
        return (at - EPOCH) // datetime.timedelta(microseconds=1)
def content_of(path):
    with turning(OSError, path, Usage), open(path, "rb") as file:
        return file.read(32 * MIB)
def open_ring(store, kit, kind, secret):
    """Return (vault, private, public) by trying the secret on the slots, the newest first (11.5)."""
    fault, slots, known = WrongKey("there is no key slot that this could open"), [], {}
    objects = [store.read(name, 0, size) for name, size in store.list("k/slot-") if size <= SLOT_MAX]
    rings = sorted((name, size) for name, size in store.list("k/ring-") if size <= RING_MAX)
    for data in [*objects, kit.get("SLOT", b"")]:
        with contextlib.suppress(Damaged):
            slots.append(read_slot(data, kit.get("vault")))
    for slot in sorted(slots, key=lambda slot: (slot["id"] != kit.get("slot"), -slot["edition"])):
        prefix, vault = f"k/ring-{slot['edition']:04x}-" if slot["edition"] else "k/ring-", binary(slot["vault"])
        tried = (store.read(name, 0, size) for name, size in reversed(rings) if name.startswith(prefix))
        usable = slot["kind"] == kind and len(known) <= STRETCHES_MAX
        for data in itertools.chain(tried, [kit.get("RING", b"")]) if usable else ():
            try:
                private, public = read_ring(data, vault, open_slot(slot, secret, known))
                need(kit.get("admin") in (None, b"", public["admin"]), "a ring of another admin")
                return vault, private, public
            except IN_PASSING as error:
                fault = error
    raise fault
def secret_in(options, kit):
    """Return (kind of slot, secret), as section 11.4 has them stretched."""
    if options.slot_key_file:
        return "key-file", content_of(options.slot_key_file)
    with turning(UnicodeDecodeError, "the passphrase or code is not UTF-8", Usage):
        if options.passphrase_file:
            text = content_of(options.passphrase_file).rstrip(b"\r\n").decode("utf-8")
            return "passphrase", unicodedata.normalize("NFC", text).encode()
        code = content_of(options.code_file).decode("utf-8") if options.code_file else kit.get("recovery-code")
    need(code, "say --kit with its code inside, --code-file, --passphrase-file or --key-file", Usage)
    return "recovery-code", re.sub(r"[\s-]", "", code).upper().encode()
def open_vaults(options, report):
    """Return the domains of the vault that the keys at hand open."""
    kit = read_kit(content_of(options.kit)) if options.kit else {}
    place = options.vault or kit.get("url", "")
    path = urllib.parse.unquote(place[7:]) if place.startswith("file://") else place
    store = Container(place) if place.startswith(("https://", "http://")) else Directory(path)
    keys = read_key_file(content_of(options.key_file)) if options.key_file else open_ring(
        store, kit, *secret_in(options, kit))
    keys, fault = Keys(*keys[:2], keys[2]["admin"]), NotFound("there is no vault at this place")
    for name, size in sorted(store.list("v/config-"), reverse=True):
        try:
            config = read_config(store.read(name, 0, min(size, JSON_MAX)), keys.admin)
            if name == f"v/config-{config['number']:06d}.json":
                break
        except Damaged as error:
            fault = error
    else:
        raise fault
    need(config["id"] == base32(keys.vault), "the keys belong to another vault", WrongKey)
    domains = {from_base32(text): writers for text, writers in config["domains"].items()}
    found = [Vault(store, keys, domain, report) for domain in domains if domain in keys.domains]
    for vault, writer in ((vault, writer) for vault in found for writer in domains[vault.domain]):
        vault.add_writer(writer)
    return found
def command_list(vault):
    """Print each source with its kept instants, its continuous time, its gaps and named points."""
    lines, firsts, faults = collections.defaultdict(list), {}, []
    for text in sorted({groups[0] for groups, _, _ in vault.names("c/", "([a-z2-7]{26})/.*")}):
        lines[from_base32(text)] += [(ms * 1000 + 999, "kept") for ms, _, _ in vault.checkpoints(from_base32(text))]
    for segment in itertools.chain(*(vault.journal(w, None, LATEST, faults) for w in sorted(vault.writers))):
        for op, dt, number, _, value in segment.records(vault.secret_of):
            at, source = segment.start + dt, segment.sources[number] if number >= 0 else None
            firsts.setdefault(source, [(at, "continuous from here")])
            if op == GAP:
                start, end, reason = unpack(value, (int, int, str))
                lines[source].append((start, f"gap until {when(end)}: {show(reason.encode())}"))
            elif op == MARK:
                lines[source].append((at, f"named {show(unpack(value, (str,))[0].encode())}"))
    for name, fault in faults:
        vault.report.damage(name, fault)
    for source in {*lines, *firsts} - {None}:
        state = vault.state_at(source, LATEST)
        name, paths = unpack(state.get(b"s"), INFO)
        print(show(name.encode()), *map(show, paths))
        for at, what in sorted([*lines[source], *firsts.get(source, []), (state.at, "newest")]):
            print(f"  {when(at)}  {what}")
def command_ls(state, tops):
    for path, _, fid, kind in walk(state, tops):
        version = state.version(fid)
        if version is not None and kind:
            print(f"{' -dlpcbs'[kind % 8]}{version.mode:04o} {version.uid}:{version.gid}"
                  f" {version.size:>12} {when(version.mtime // 1000)} {show(path)}")
def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["list", "ls", "restore"])
    for name in ("source", "target"):
        parser.add_argument(name, nargs="?")
    for name in ("kit", "code-file", "passphrase-file", "slot-key-file", "key-file", "vault", "at"):
        parser.add_argument(f"--{name}", default="latest" if name == "at" else None)
    parser.add_argument("--path", action="append", default=[])
    parser.add_argument("--devices", action="store_true")
    return parser.parse_intermixed_args(arguments)
def run(options, report):
    wanted = {"list": 0, "ls": 1, "restore": 2}[options.command]
    need(wanted == bool(options.source) + bool(options.target), "say SOURCE, and for restore TARGET", Usage)
    fault = None if wanted == 0 else NotFound(f"there is no source {options.source!r} in this vault")
    for vault in open_vaults(options, report):
        try:
            if wanted == 0:
                command_list(vault)
                continue
            state = vault.state_at(h(b"source|" + options.source.encode(), vault.id_key)[:16], instant(options.at))
            tops = [top for path in options.path or [""] for top in state.find(os.fsencode(path))]
            return (command_ls if wanted == 1 else Restore(vault, options).run)(state, tops)
        except NotFound as error:
            fault = error
    need(fault is None, str(fault), NotFound)
def main(arguments):
    options, report = parsed(arguments), Report()
    try:
        run(options, report)
    except Fault as fault:
        print(f"streamd-rescue: {fault}", file=sys.stderr)
        return fault.exit_code
    return Damaged.exit_code if report.damages else 3 if report.refusals else 0
if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "list | head" ends like any other program before a pipe
    sys.exit(main(sys.argv[1:]))
