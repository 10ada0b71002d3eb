"""The recovery kit: a text for people, and in it what a machine needs to open the vault.

    format: 1
    vault: <base32>               the vault's id
    url: <address>                where it is
    admin: <base32>               public key of the admin: another vault cannot pass for this one
    slot: <slot id>               the slot that the recovery code opens
    recovery-code: <code>         only if it was asked to be kept here

    -----BEGIN STREAMD SLOT-----  copies of the slot and of the ring, for a vault whose own copies
    -----BEGIN STREAMD RING-----  are lost: base64 in lines, each closed by a line with END

Lines that are none of these are for people, and without meaning.
"""

import base64
import re
from typing import Final

import msgspec

from streamd.errors import KitInvalid
from streamd.format.crypto import KEY_SIZE
from streamd.model.ids import ID_SIZE, from_text, to_text

KIT_FORMAT: Final = "1"
KIT_SIZE_MAX: Final = 32 * 1024 * 1024
_LINE: Final = 64
_FIELD: Final = re.compile(r"(format|vault|url|admin|slot|recovery-code|created): (.*)")
_BEGIN: Final = re.compile(r"-----BEGIN STREAMD (SLOT|RING)-----")


class Kit(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery kit says."""

    vault: bytes
    url: str
    admin: bytes = b""  # empty in kits made before it was there
    slot_id: str = ""
    code: str = ""  # empty: kept apart
    created: str = ""
    slot: bytes = b""
    ring: bytes = b""

    def __repr__(self) -> str:
        return f"Kit(vault={to_text(self.vault)}, url={self.url})"


_HEAD: Final = """\
STREAMD RECOVERY KIT
====================

Whoever has this kit and its recovery code can read everything in the vault named below, without
the machines that were protected. Nobody can without one of them.

* Keep it away from the protected machines: print it, put it into a safe or a password manager.
* {code_line}
* Try it now and then:    streamd key test --kit THIS-FILE
* Restore anything, on any machine with streamd and access to the vault's storage:
                          streamd restore SOURCE --to DIR --kit THIS-FILE
  To see what there is:   streamd points --kit THIS-FILE
* The format of this file and of the vault, and how to read both without streamd:
  docs/format.md of the streamd project.

On paper, the five lines up to "slot" and the recovery code are enough, as long as the vault's
folder k/ is whole.

"""
_CODE_HERE: Final = "ITS RECOVERY CODE IS IN THIS FILE: the file alone opens the vault."
_CODE_APART: Final = "Its recovery code is kept apart, where it was written down when it was made."


def encode_kit(kit: Kit) -> bytes:
    """Return the kit's text."""
    lines = [
        _HEAD.format(code_line=_CODE_HERE if kit.code else _CODE_APART) + f"format: {KIT_FORMAT}",
        f"vault: {to_text(kit.vault)}",
        f"url: {kit.url}",
        f"admin: {to_text(kit.admin)}",
        f"slot: {kit.slot_id}",
    ]
    if kit.code:
        lines.append(f"recovery-code: {kit.code}")
    lines.append(f"created: {kit.created}")
    for what, data in (("SLOT", kit.slot), ("RING", kit.ring)):
        text = base64.b64encode(data).decode("ascii")
        lines += ["", f"-----BEGIN STREAMD {what}-----"]
        lines += [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
        lines.append(f"-----END STREAMD {what}-----")
    return ("\n".join(lines) + "\n").encode()


def decode_kit(data: bytes) -> Kit:
    """Parse a kit. Raises KitInvalid; the message never quotes the kit."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KitInvalid("the recovery kit is not a text") from None
    fields, blocks = _parts(text)
    if fields.get("format") != KIT_FORMAT:
        known = "a recovery kit of another format" if "format" in fields else "no recovery kit"
        raise KitInvalid(f"the file is {known}")
    return Kit(
        vault=_bytes_of(fields, "vault", ID_SIZE),
        url=fields.get("url", ""),
        admin=_bytes_of(fields, "admin", KEY_SIZE) if "admin" in fields else b"",
        slot_id=fields.get("slot", ""),
        code=fields.get("recovery-code", ""),
        created=fields.get("created", ""),
        slot=blocks.get("SLOT", b""),
        ring=blocks.get("RING", b""),
    )


def _bytes_of(fields: dict[str, str], name: str, size: int) -> bytes:
    try:
        found = from_text(fields.get(name, "").lower())
    except ValueError:
        found = b""
    if len(found) != size:
        raise KitInvalid(f"the line {name} of the recovery kit is missing or damaged")
    return found


def _parts(text: str) -> tuple[dict[str, str], dict[str, bytes]]:
    fields: dict[str, str] = {}
    blocks: dict[str, bytes] = {}
    inside, collected = "", list[str]()
    for line in (each.strip() for each in text.splitlines()):
        if inside:
            if line != f"-----END STREAMD {inside}-----":
                collected.append(line)
                continue
            blocks[inside] = _decoded("".join(collected), inside)
            inside = ""
        elif begin := _BEGIN.fullmatch(line):
            inside, collected = begin[1], []
        elif found := _FIELD.fullmatch(line):
            if found[1] in fields:
                raise KitInvalid(f"the recovery kit has two lines {found[1]}")
            fields[found[1]] = found[2].strip()
    if inside:
        raise KitInvalid("the recovery kit is cut off")
    return fields, blocks


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise KitInvalid(f"the block {what} of the recovery kit is damaged") from None
