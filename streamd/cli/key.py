"""`streamd key …`: what opens the vault, and changing it.

Commands that change keys need all of them: those of a full host, or those that a kit opens.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import msgspec

from streamd.cli import context, render, unlocked
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import argument, option
from streamd.cli.init import Places, write_kit
from streamd.cli.times import format_rfc3339, parse_time
from streamd.config.model import Config
from streamd.config.zone import zone_of
from streamd.daemon import keyholder
from streamd.daemon.keyholder import Change, KeyHolder
from streamd.daemon.unlocking import KeyOffer, read_kit, read_secret_file
from streamd.daemon.writers import Keys, revoke_writer
from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import SecretUnusable, UsageInvalid
from streamd.format import slots
from streamd.format.kit import encode_kit
from streamd.format.slots import Secret, SlotKind
from streamd.observe.logging import register_secret
from streamd.vault.documents import utc_text
from streamd.vault.keyring import Published

_LABEL_MAX: Final = 100

KitOption = Annotated[
    str | None,
    option("--kit", metavar="FILE", help="Act with the keys that this kit opens."),
]
CodeOption = Annotated[
    str | None,
    option("--code-file", metavar="FILE", help="Holds the kit's code; else it is asked."),
]
PassphraseOption = Annotated[
    str | None,
    option("--passphrase-file", metavar="FILE", help="A new slot for this passphrase."),
]
AskOption = Annotated[bool, option("--passphrase", help="A new slot for a passphrase typed twice.")]
KeyFileOption = Annotated[
    str | None,
    option(
        "--key-file", metavar="FILE", help="A new slot for this key file; made if there is none."
    ),
]
RecoveryOption = Annotated[
    bool, option("--recovery-code", help="A new slot for a new recovery code.")
]
NewKitOption = Annotated[
    str | None,
    option("--new-kit", metavar="FILE", help="Where to write the new code's kit."),
]
NewCodeOption = Annotated[
    str | None,
    option("--new-code-file", metavar="FILE", help="Where to write the new code."),
]
LabelOption = Annotated[str, option("--label", help="A few words to know the slot by.")]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which new slot was asked for."""

    passphrase_file: str | None = None
    passphrase: bool = False
    key_file: str | None = None
    recovery_code: bool = False
    new_kit: str | None = None
    new_code_file: str | None = None
    label: str = ""


class ChangeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints after a change. Never a secret."""

    done: str
    edition: int  # of the key ring in force
    left_behind: int  # old slots and rings that the storage would not delete
    daemon: str
    slot: str = ""
    kit: str = ""
    code: str = ""  # where the new recovery code is
    generation: int = 0  # of the key pairs
    certificate: int = 0


def add(
    *,
    passphrase_file: PassphraseOption = None,
    passphrase: AskOption = False,
    key_file: KeyFileOption = None,
    recovery_code: RecoveryOption = False,
    new_kit: NewKitOption = None,
    new_code_file: NewCodeOption = None,
    label: LabelOption = "",
    kit: KitOption = None,
    code_file: CodeOption = None,
) -> None:
    """Add a way to open the vault: a passphrase, a key file, or a new recovery kit.

    Example: streamd key add --recovery-code --new-kit /root/second.kit
    """
    wanted = Wanted(
        passphrase_file=passphrase_file,
        passphrase=passphrase,
        key_file=key_file,
        recovery_code=recovery_code,
        new_kit=new_kit,
        new_code_file=new_code_file,
        label=label,
    )
    emit(run_async(_add(load_config(), offer_of(kit, code_file), wanted)), change_text)


async def _add(config: Config, offer: KeyOffer, wanted: Wanted) -> ChangeReport:
    secret = new_secret(wanted)
    async with holding(config, offer) as holder:
        return await added(holder, secret, wanted, "added")


async def added(holder: KeyHolder, secret: Secret, wanted: Wanted, verb: str) -> ChangeReport:
    """Add a slot, with its kit if it has one, proven. Raises SecretUnusable, KitInvalid."""
    slots.check_new_secret(secret)
    label = wanted.label or secret.kind.replace("-", " ")
    slot_id, done = await keyholder.add_slot(holder, secret, label)
    kit, code = "", ""
    if wanted.new_kit is not None:
        kit, code = await _write_kit(holder, secret, slot_id, done, wanted)
    change = await finished(holder, done)
    return ChangeReport(
        done=f"slot {slot_id} {verb}",
        edition=change.edition,
        left_behind=change.left_behind,
        daemon=change.daemon,
        slot=slot_id,
        kit=kit,
        code=code,
    )


async def _write_kit(
    holder: KeyHolder, secret: Secret, slot_id: str, done: Published, wanted: Wanted
) -> tuple[str, str]:
    """Write and prove the kit of a new slot; return where it and its code are."""
    assert wanted.new_kit is not None
    places = places_of(wanted)
    code = secret.value.decode("ascii")
    kit = keyholder.kit_of(holder, slot_id, done, utc_text(holder.clock.now_us()))
    if places.code == places.kit:
        kit = msgspec.structs.replace(kit, code=code)
    write_kit(places, encode_kit(kit), code)
    await keyholder.prove_kit(holder, secret, read_kit(places.kit))
    return places.kit, places.code


def places_of(wanted: Wanted) -> Places:
    """Return where a new kit and its code go. Raises UsageInvalid if something is there."""
    assert wanted.new_kit is not None
    kit = os.path.abspath(wanted.new_kit)
    code = os.path.abspath(wanted.new_code_file) if wanted.new_code_file else ""
    for path in (kit, code):
        if path and os.path.lexists(path):
            raise UsageInvalid(f"{path} exists: it is not overwritten")
    return Places(kit=kit, code_file=code, shows_code=not code and context.has_terminal())


def new_secret(wanted: Wanted) -> Secret:
    """Return the secret of the slot that is asked for. Raises UsageInvalid, SecretUnusable."""
    asked = (
        wanted.passphrase_file is not None,
        wanted.passphrase,
        wanted.key_file is not None,
        wanted.recovery_code,
    )
    if sum(asked) != 1:
        raise UsageInvalid(
            "say one of --recovery-code, --passphrase, --passphrase-file and --key-file"
        )
    if wanted.recovery_code != (wanted.new_kit is not None):
        raise UsageInvalid("a recovery code and its kit belong together: --recovery-code --new-kit")
    if len(wanted.label) > _LABEL_MAX or not wanted.label.isprintable():
        raise UsageInvalid(f"a label is at most {_LABEL_MAX} printable characters")
    if wanted.recovery_code:
        places_of(wanted)  # refused before anything changes
        code = slots.new_recovery_code(SystemEntropy())
        register_secret(code)
        return Secret(SlotKind.RECOVERY_CODE, code.encode())
    if wanted.passphrase_file is not None:
        return read_secret_file(SlotKind.PASSPHRASE, wanted.passphrase_file)
    if wanted.key_file is not None:
        return _key_file(os.path.abspath(wanted.key_file))
    return _typed_passphrase()


def _key_file(path: str) -> Secret:
    if not os.path.lexists(path):
        from streamd.config.private_files import write_private

        write_private(path, SystemEntropy().token(slots.KEY_FILE_SIZE_MIN * 2))
    return read_secret_file(SlotKind.KEY_FILE, path)


def _typed_passphrase() -> Secret:
    if not context.has_terminal():
        raise SecretUnusable("nobody is there to type a passphrase")
    first = unlocked.ask("New passphrase: ")
    register_secret(first)
    if unlocked.ask("Once more: ") != first:
        raise SecretUnusable("the two passphrases differ")
    return Secret(SlotKind.PASSPHRASE, first.encode())


def revoke(
    ids: Annotated[
        list[str] | None,
        argument(metavar="[ID…]", help="Slots, as `streamd key list` shows them."),
    ] = None,
    *,
    writer: Annotated[
        str | None,
        option("--writer", metavar="HOST", help="Signing keys of this host instead."),
    ] = None,
    keys: Annotated[
        Keys, option("--keys", help="old: those that were rotated. all: the host is gone.")
    ] = Keys.OLD,
    since: Annotated[
        str, option("--from", metavar="T", help="Since when a signing key is not trusted.")
    ] = "now",
    kit: KitOption = None,
    code_file: CodeOption = None,
) -> None:
    """Take slots away, or the trust in a host's signing keys. Never the last slot.

    A copy of the old ring that somebody made, or that the storage keeps, still opens with the old
    slot, and shows what was written until now: `streamd key rotate pair` protects what comes.
    What a signing key signed before T stays good; what carries a later date is damage.
    Example: streamd key revoke wexn6a7gszhbg; streamd key revoke --writer web1 --from -2d
    """
    if bool(ids) == (writer is not None):
        raise UsageInvalid("name slots to take away, or one host: streamd key revoke --writer HOST")
    config, offer = load_config(), offer_of(kit, code_file)
    if writer is None:
        emit(run_async(_revoke(config, offer, ids or [])), change_text)
        return
    clock = SystemClock()
    from_us = parse_time(since, now_us=clock.now_us(), zone=zone_of(config.timezone))
    if from_us > clock.now_us():
        raise UsageInvalid("--from is in the future: until then the key would be trusted")
    emit(run_async(_revoke_writer(config, offer, writer, keys, from_us)), change_text)


async def _revoke_writer(
    config: Config, offer: KeyOffer, writer: str, keys: Keys, from_us: int
) -> ChangeReport:
    async with holding(config, offer) as holder:
        made = await revoke_writer(holder, writer, keys, from_us=from_us)
        count = f"{len(made)} signing key{'' if len(made) == 1 else 's'}"
        return ChangeReport(
            done=f"{count} of {writer} revoked from {format_rfc3339(from_us)} on",
            edition=holder.content.private.edition,
            left_behind=0,
            daemon=await holder.tell_daemon(),
            certificate=made[-1] if made else 0,
        )


async def _revoke(config: Config, offer: KeyOffer, ids: list[str]) -> ChangeReport:
    async with holding(config, offer) as holder:
        done = await keyholder.revoke_slots(holder, ids)
        change = await finished(holder, done)
    return report(f"slot {', '.join(ids)} revoked", change)


def offer_of(kit: str | None, code_file: str | None) -> KeyOffer:
    """Return what a command that changes keys was given to act with."""
    ask = unlocked.ask if context.has_terminal() else None
    return KeyOffer(kit=kit, code_file=code_file, ask=ask)


@asynccontextmanager
async def holding(config: Config, offer: KeyOffer) -> AsyncIterator[KeyHolder]:
    """Lend the means to change keys."""
    async with keyholder.open_holder(
        config, offer, clock=SystemClock(), entropy=SystemEntropy()
    ) as holder:
        yield holder


async def finished(holder: KeyHolder, done: Published) -> Change:
    """Tell the daemon, and return what is to be said about a change."""
    return Change(
        edition=done.content.private.edition,
        left_behind=done.left_behind,
        daemon=await holder.tell_daemon(),
    )


def report(what: str, change: Change) -> ChangeReport:
    """Return the report of a change."""
    return ChangeReport(
        done=what,
        edition=change.edition,
        left_behind=change.left_behind,
        daemon=change.daemon,
    )


def change_text(shown: ChangeReport) -> str:
    """Return the report of a change in words."""
    lines = [shown.done, f"key ring edition {shown.edition}, daemon: {shown.daemon}"]
    if shown.generation:
        lines.append(f"new data is sealed to generation {shown.generation} of the key pairs")
    if shown.kit:
        where = "shown above" if shown.code == "terminal" else f"in {shown.code}"
        lines.append(f"recovery kit {shown.kit} (proven), its code is {where}")
    if shown.left_behind:
        lines.append(
            f"note: {render.count(shown.left_behind)} old slots and rings could not be deleted;"
            " whoever has their secret can open them, and read what was written until now"
        )
    return "\n".join(lines)
