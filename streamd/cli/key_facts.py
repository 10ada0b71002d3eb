"""`streamd key list|test|host-role|rotate`: what there is, proving it, and changing roles."""

import os
from enum import StrEnum
from typing import Annotated

import msgspec

from streamd.cli import context, key, render
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import argument
from streamd.cli.key import (
    AskOption,
    ChangeReport,
    CodeOption,
    KeyFileOption,
    KitOption,
    LabelOption,
    NewCodeOption,
    NewKitOption,
    PassphraseOption,
    RecoveryOption,
    Wanted,
    change_text,
    offer_of,
)
from streamd.cli.unlocked import config_for, offer, open_vault
from streamd.config.model import Config
from streamd.daemon import keyholder
from streamd.daemon.compose import open_reading_store
from streamd.daemon.unlocking import KeyOffer, read_kit, read_offer
from streamd.errors import KeyRejected, NotFound, UsageInvalid, VaultDamaged, VaultMissing
from streamd.format import crypto, layout, slots
from streamd.format.keys import SlotKey
from streamd.format.vault_config import VaultConfig
from streamd.model.ids import from_text
from streamd.storage.port import BlobStore
from streamd.vault.documents import newest_config
from streamd.vault.keyring import Unlocked, unlock
from streamd.vault.state_reader import StateReader


class SlotLine(msgspec.Struct, frozen=True, kw_only=True):
    """One slot."""

    id: str
    kind: str
    label: str
    created: str


class ListReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `key list --json` prints."""

    vault: str
    kem: str
    edition: int  # of the key ring in force
    generation: int  # of the key pairs that new data is sealed to
    role: str  # of this host: full, write-only, none
    known_edition: int  # which this host's key file knows; 0: none
    proven: bool  # the slots are those of an opened ring, not merely what lies in the vault
    slots: tuple[SlotLine, ...]


class TestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `key test --json` prints."""

    vault: str
    url: str
    edition: int
    generations: tuple[int, ...]
    slot: str
    kind: str
    hosts: int
    sources: tuple[str, ...]
    kit_edition: int  # of the kit's own copy; 0: it has none


class RoleReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `key host-role --json` prints."""

    role: str
    daemon: str
    kit_is_here: bool = False  # the kit with its code is on a disk of this host


class HostRole(StrEnum):
    """What a host's key file holds."""

    FULL = "full"
    WRITE_ONLY = "write-only"


class Rotated(StrEnum):
    """What can be replaced."""

    SLOT = "slot"
    PAIR = "pair"
    CERTIFICATE = "certificate"


def list_(*, kit: KitOption = None, code_file: CodeOption = None) -> None:
    """Show the role of this host, and what opens the vault.

    Example: streamd key list
    """
    emit(run_async(_list(load_config(), offer_of(kit, code_file))), _list_text)


async def _list(config: Config, given: KeyOffer) -> ListReport:
    host = keyholder.own_key(config.vault.key_file)
    store = open_reading_store(config)
    try:
        shown = await newest_config(store, None if host is None else host.public.admin)
        if shown is None:
            raise VaultMissing(f"there is no vault at {config.vault.url}", url=config.vault.url)
        edition = layout.parse_ring_name(shown.ring) or 0
        known: dict[str, SlotKey] | None = None
        if given.is_made:
            secret, opened_kit = read_offer(given)
            opened = await unlock(store, secret, kit=opened_kit, url=config.vault.url)
            known = opened.content.private.slots
        elif host is not None and host.private is not None and host.private.edition == edition:
            known = host.private.slots
        lines = await _lying_there(store, shown) if known is None else _known(known)
    finally:
        await store.aclose()
    role = "none" if host is None else HostRole.FULL if host.is_full else HostRole.WRITE_ONLY
    return ListReport(
        vault=shown.id,
        kem=shown.suite.kem,
        edition=edition,
        generation=shown.public.generation if shown.public is not None else 1,
        role=role,
        known_edition=0 if host is None or host.private is None else host.private.edition,
        proven=known is not None,
        slots=lines,
    )


def _known(found: dict[str, SlotKey]) -> tuple[SlotLine, ...]:
    return tuple(
        SlotLine(id=slot_id, kind=slot.kind, label=slot.label, created=slot.created)
        for slot_id, slot in sorted(found.items(), key=lambda item: (item[1].created, item[0]))
    )


async def _lying_there(store: BlobStore, shown: VaultConfig) -> tuple[SlotLine, ...]:
    """Return the slots of the ring in force as they lie in the vault; nothing proves them."""
    edition = layout.parse_ring_name(shown.ring) or 0
    lines = []
    async for info in store.scan(layout.SLOT_PREFIX):
        if info.size_bytes > slots.SLOT_SIZE_MAX:
            continue
        try:
            slot = slots.decode_slot(await store.get(info.name), from_text(shown.id))
        except VaultDamaged:
            continue
        if slot.edition == edition or not slot.edition:
            lines.append(
                SlotLine(id=slot.id, kind=slot.kind, label=slot.label, created=slot.created)
            )
    return tuple(sorted(lines, key=lambda line: (line.created, line.id)))


def _list_text(shown: ListReport) -> str:
    lines = [
        f"vault {shown.vault}, sealed with {shown.kem}, generation {shown.generation}",
        f"this host: {shown.role}, key ring edition {shown.edition}"
        + (
            f" (its key file knows {shown.known_edition})"
            if shown.known_edition not in {0, shown.edition}
            else ""
        ),
        render.table(
            ("slot", "kind", "label", "created"),
            [
                (line.id or "-", line.kind, render.name(line.label.encode()), line.created)
                for line in shown.slots
            ],
        ),
    ]
    if not shown.proven:
        lines.append("note: as it lies in the vault; with --kit it is proven")
    return "\n".join(lines)


def test() -> None:
    """Prove that a kit, a passphrase or a key file opens the vault. Changes nothing.

    Works on any machine. Example: streamd key test --kit /media/usb/streamd.kit
    """
    if not offer().is_made:
        raise UsageInvalid("say what to test: --kit, --passphrase-file or --slot-key-file")
    config = config_for(context.invocation().unlock, context.config_path())
    emit(run_async(_test(config)), _test_text)


async def _test(config: Config) -> TestReport:
    given = offer()
    secret, kit = read_offer(given)
    store = open_reading_store(config)
    try:
        opened = await unlock(store, secret, kit=kit, url=config.vault.url)
        shown = await newest_config(store, opened.content.public.admin)
        if shown is None:
            raise VaultMissing(f"there is no vault at {config.vault.url}", url=config.vault.url)
        _check_pairs(opened, shown)
    finally:
        await store.aclose()
    try:
        async with open_vault(config) as vault:
            names = tuple(each.info.name for each in await StateReader(vault).sources())
    except NotFound:
        names = ()  # several hosts: without --host none is read
    kit_edition = 0
    if kit is not None and kit.slot:
        kit_edition = slots.decode_slot(kit.slot, kit.vault).edition
    return TestReport(
        vault=shown.id,
        url=config.vault.url,
        edition=opened.edition,
        generations=tuple(sorted(opened.content.private.meta)),
        slot=opened.slot_id,
        kind=secret.kind,
        hosts=len(opened.content.private.domains),
        sources=names,
        kit_edition=kit_edition,
    )


def _check_pairs(opened: Unlocked, shown: VaultConfig) -> None:
    """Raise KeyRejected unless the ring opens what hosts seal to now."""
    if not opened.is_current:
        raise KeyRejected("it opens an old key ring only: its slot was revoked")
    public, private = opened.content.public, opened.content.private
    kem = crypto.kem_of(public.kem)
    generation = public.generation if shown.public is None else shown.public.generation
    for role, keys in (("meta", private.meta), ("data", private.data)):
        key_ = keys.get(generation)
        sealed_to = getattr(public, role)
        if key_ is None or crypto.public_of(kem, key_) != sealed_to:
            raise KeyRejected(
                f"the key ring does not hold the {role} key of generation {generation}"
            )


def _test_text(shown: TestReport) -> str:
    generations = ", ".join(map(str, shown.generations))
    lines = [
        f"the {shown.kind} opens the vault {shown.vault} at {shown.url}",
        f"slot {shown.slot}, key ring edition {shown.edition}, key pairs {generations}",
        f"hosts: {render.count(shown.hosts)}",
        f"sources: {', '.join(shown.sources) or '(several hosts: see --host)'}",
    ]
    if shown.kit_edition and shown.kit_edition != shown.edition:
        lines.append(
            f"note: the copies inside the kit are of edition {shown.kit_edition}; should the vault"
            " lose its folder k/, they open what was written until then. streamd key add"
            " --recovery-code --new-kit makes a new kit"
        )
    return "\n".join(lines)


def host_role(
    role: Annotated[HostRole, argument(help="full or write-only.")],
    *,
    kit: KitOption = None,
    code_file: CodeOption = None,
) -> None:
    """Say what this host may do: read and write, or write only. The kit must be proven for it.

    Example: streamd key host-role write-only --kit /media/usb/streamd.kit
    """
    if kit is None:
        raise UsageInvalid("say --kit FILE: the recovery kit must be proven for this")
    emit(run_async(_host_role(load_config(), offer_of(kit, code_file), role)), _role_text)


async def _host_role(config: Config, given: KeyOffer, role: HostRole) -> RoleReport:
    async with key.holding(config, given) as holder:
        if role is HostRole.FULL:
            keyholder.make_full(holder)
        else:
            keyholder.make_write_only(holder)
        return RoleReport(
            role=role, daemon=await holder.tell_daemon(), kit_is_here=_is_here(given, config)
        )


def _is_here(given: KeyOffer, config: Config) -> bool:
    """Return whether a kit that opens the vault by itself lies beside this host's key file."""
    assert given.kit is not None
    if not read_kit(given.kit).code:
        return False
    folder = os.path.dirname(config.vault.key_file)
    return os.stat(given.kit).st_dev == os.stat(folder).st_dev


def _role_text(shown: RoleReport) -> str:
    what = {
        HostRole.FULL: "this host can protect and restore",
        HostRole.WRITE_ONLY: "this host can protect, and can read nothing in the vault:"
        " reading commands and retention need --kit from now on",
    }[HostRole(shown.role)]
    lines = [what, f"daemon: {shown.daemon}"]
    if shown.kit_is_here and shown.role == HostRole.WRITE_ONLY:
        lines.append(
            "WARNING: the kit and its code are still on a disk of this host, and open the vault:"
            " move them away"
        )
    return "\n".join(lines)


def rotate(
    what: Annotated[Rotated, argument(help="slot, pair or certificate.")],
    slot_id: Annotated[str | None, argument(metavar="[ID]", help="Of the slot.")] = None,
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
    """Replace a slot, the vault's key pairs, or this host's signing key.

    slot ID: a new slot, then the old one is revoked. pair: new data is sealed to new keys, what is
    there stays readable. certificate: a new signing key for this host.
    Example: streamd key rotate pair
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
    if (what is Rotated.SLOT) != (slot_id is not None):
        raise UsageInvalid("name the slot to replace: streamd key rotate slot ID")
    if what is not Rotated.SLOT and wanted != Wanted():
        raise UsageInvalid(f"options for a new slot mean nothing for {what}")
    given = offer_of(kit, code_file)
    emit(run_async(_rotate(load_config(), given, what, slot_id, wanted)), change_text)


async def _rotate(
    config: Config, given: KeyOffer, what: Rotated, slot_id: str | None, wanted: Wanted
) -> ChangeReport:
    if what is Rotated.SLOT:
        assert slot_id is not None
        return await _rotate_slot(config, given, slot_id, wanted)
    async with key.holding(config, given) as holder:
        if what is Rotated.PAIR:
            done = await keyholder.rotate_pair(holder)
            found = key.report("new key pairs", await key.finished(holder, done))
            return msgspec.structs.replace(found, generation=done.content.public.generation)
        number = await keyholder.rotate_certificate(holder, context.host_name())
        return ChangeReport(
            done=f"certificate {number} of this host",
            edition=holder.content.private.edition,
            left_behind=0,
            daemon=await holder.tell_daemon(),
            certificate=number,
        )


async def _rotate_slot(
    config: Config, given: KeyOffer, slot_id: str, wanted: Wanted
) -> ChangeReport:
    secret = key.new_secret(wanted)
    async with key.holding(config, given) as holder:
        keyholder.check_slots(holder, [slot_id])
        added = await key.added(holder, secret, wanted, f"takes the place of {slot_id}")
        done = await keyholder.revoke_slots(holder, [slot_id])
        change = await key.finished(holder, done)
    return msgspec.structs.replace(
        added, edition=change.edition, left_behind=change.left_behind, daemon=change.daemon
    )
