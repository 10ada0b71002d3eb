"""`streamd restore`: bring back files as they were."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec.structs import replace

from streamd.cli import render, unlocked
from streamd.cli.context import emit, is_json, load_config, run_async
from streamd.cli.declare import argument, option
from streamd.cli.selection import LATEST, AtOption, in_words, instant, select
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.effects import SystemClock
from streamd.errors import ExitCode, UsageInvalid
from streamd.restore.fetch import Progress
from streamd.restore.plan import OnConflict
from streamd.restore.session import RestoreReport, RestoreRequest, RestoreSession, Selection
from streamd.storage.rate import ByteRate
from streamd.vault.state_reader import StateReader

_SHOWN = 20


class RefusedLine(msgspec.Struct, frozen=True, kw_only=True):
    """One path that was not restored."""

    path: str
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Sizes in bytes."""

    dry_run: bool
    to: str
    complete: bool
    at: dict[str, str]  # source -> instant really restored
    remarks: tuple[str, ...]
    directories: int
    files: int
    links: int
    equal: int
    skipped: int
    bytes: int
    read_bytes: int
    local_bytes: int
    remote_bytes: int
    verified: int
    refused: tuple[RefusedLine, ...]
    notes: dict[str, int]
    damage: tuple[str, ...]
    seconds: float


def command(
    what: Annotated[list[str], argument(metavar="SOURCE[:PATH]…", help="What to restore.")],
    *,
    to: Annotated[str, option("--to", metavar="DIR", help="What is named becomes DIR.")] = "",
    in_place: Annotated[bool, option("--in-place", help="To where it came from.")] = False,
    yes: Annotated[bool, option("--yes", help="Overwriting in place is meant.")] = False,
    at: AtOption = LATEST,
    on_conflict: Annotated[
        OnConflict | None,
        option(
            help="What to do where something else stands; "
            "default fail, and overwrite with --in-place."
        ),
    ] = None,
    dry_run: Annotated[bool, option("--dry-run", help="Only say what would be done.")] = False,
    verify: Annotated[bool, option("--verify", help="Read back what was written.")] = False,
    devices: Annotated[bool, option("--devices", help="Restore device nodes too.")] = False,
    limit: Annotated[
        str,
        option("--limit", metavar="RATE", help="Read at most so much from a container."),
    ] = "",
) -> ExitCode:
    """Bring back files as they were; equal ones are left alone, so it can be repeated.

    Nothing is ever deleted. Example: streamd restore web:/srv/www --at -2h --to /tmp/www
    """
    if bool(to) == in_place:
        raise UsageInvalid("say either --to DIR or --in-place")
    if in_place and not yes and not dry_run:
        raise UsageInvalid("--in-place overwrites files: say --yes if that is meant")
    rule = on_conflict or (OnConflict.OVERWRITE if in_place else OnConflict.FAIL)
    request = RestoreRequest(
        selections=(),
        at_us=0,
        target=None if in_place else os.fsencode(os.path.abspath(to)),
        on_conflict=rule,
        dry_run=dry_run,
        verify=verify,
        devices=devices,
    )
    receiving = _receiving(limit) if limit else None
    config = load_config()
    if in_place:
        _refuse_commands(config, what)
    return run_async(_restore(config, what, at, request, receiving))


def _receiving(limit: str) -> ByteRate:
    from streamd.cli.traffic import rate_of  # brings the uploader with it

    return ByteRate(SystemClock(), rate_of(limit))


def _refuse_commands(config: Config, what: list[str]) -> None:
    """What a program wrote came from no place to which it could go back."""
    for name in sorted({text.partition(":")[0] for text in what}):
        source = config.sources.get(name)
        if source is not None and source.kind == "command":
            raise UsageInvalid(f"source {name} is the output of a command: restore it --to DIR")


async def _restore(
    config: Config, what: list[str], at: str, request: RestoreRequest, receiving: ByteRate | None
) -> ExitCode:
    async with unlocked.open_vault(config, receiving=receiving) as vault:
        reader = StateReader(vault)
        chosen = [await select(reader, text) for text in what]
        at_us = await instant(reader, chosen[0].name, at, config)
        selections = [Selection(each.name, (each.path,)) for each in chosen]
        request = replace(request, selections=selections, at_us=at_us)
        with _progress_bar() as progress:
            session = RestoreSession(
                vault, request, clock=SystemClock(), progress=progress, states=reader
            )
            done = await session.run()
    target = "" if request.target is None else render.name(request.target)
    emit(_report(done, target), lambda _: _text(done, target, config))
    if done.is_damaged:
        return ExitCode.INTEGRITY
    return ExitCode.INCOMPLETE if done.refused else ExitCode.OK


def _report(done: RestoreReport, target: str) -> Report:
    return Report(
        dry_run=done.dry_run,
        to=target,
        complete=not done.refused and not done.is_damaged,
        at={source: format_rfc3339(at_us) for source, at_us in done.at_us.items()},
        remarks=tuple(done.remarks),
        directories=done.directory_count,
        files=done.file_count,
        links=done.link_count,
        equal=done.equal_count,
        skipped=done.skipped_count,
        bytes=done.content_bytes,
        read_bytes=done.read_bytes,
        local_bytes=done.local_bytes,
        remote_bytes=done.remote_bytes,
        verified=done.verified_count,
        refused=tuple(
            RefusedLine(path=render.name(each.path), reason=each.reason) for each in done.refused
        ),
        notes=done.notes.counts,
        damage=tuple(f"{each.name}: {each.what}" for each in done.damage),
        seconds=round(done.seconds, 3),
    )


def _text(done: RestoreReport, target: str, config: Config) -> str:
    lines = [f"{source} as of {in_words(at, config)}" for source, at in done.at_us.items()]
    lines += done.remarks
    verb = "would restore" if done.dry_run else "restored"
    where = f" to {target}" if target else " in place"
    lines.append(
        f"{verb}{where}: {render.count(done.file_count)} files, "
        f"{render.count(done.directory_count)} directories, {render.size(done.content_bytes)}"
    )
    for amount, what in (
        (done.link_count, "hard links"),
        (done.equal_count, "were equal already"),
        (done.skipped_count, "left as they are"),
        (done.verified_count, "read back and found right"),
    ):
        if amount:
            lines.append(f"  {render.count(amount)} {what}")
    if done.dry_run:
        lines.append(f"  {render.size(done.read_bytes)} to be read from the vault")
    else:
        lines.append(
            f"  read {render.size(done.read_bytes)} of the vault's objects"
            + (f", {render.size(done.remote_bytes)} remote" if done.remote_bytes else ", all local")
            + f", in {render.duration(done.seconds)}"
        )
    for reason, count in done.notes.counts.items():
        lines.append(f"note: {reason}: {count} ({render.name(done.notes.first[reason])})")
    lines += [f"damaged: {each.name}: {each.what}" for each in done.damage[:_SHOWN]]
    lines += [f"not restored: {render.name(r.path)}: {r.reason}" for r in done.refused[:_SHOWN]]
    if (more := len(done.refused) - _SHOWN) > 0:
        lines.append(f"not restored: {more} more; --json lists all")
    return "\n".join(lines)


@contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Show progress on a terminal; elsewhere nothing."""
    if is_json() or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn())
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("restore", total=None)

        def show(state: Progress) -> None:
            bar.update(task, total=state.content_total, completed=state.content_bytes)

        yield show
