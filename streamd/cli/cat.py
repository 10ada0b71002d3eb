"""`streamd cat`: the bytes of a file as it was, on standard output."""

import sys
from typing import Annotated

from streamd.cli import render
from streamd.cli.context import emit, is_json, load_config, note, run_async
from streamd.cli.declare import argument
from streamd.cli.entries import AsOf, EntryLine, flag_names, line_of, type_name
from streamd.cli.selection import (
    LATEST,
    AtOption,
    conclude,
    instant,
    look_up,
    open_reader,
    select,
)
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.errors import ExitCode, UsageInvalid, VaultDamaged
from streamd.model.entry import EntryType, FileVersion
from streamd.vault.tree_state import TreeEntry


class Report(AsOf, frozen=True, kw_only=True):
    """What `--json` prints instead of the bytes."""

    source: str
    entry: EntryLine


def command(
    what: Annotated[str, argument(metavar="SOURCE:PATH", help="The file.")],
    at: AtOption = LATEST,
) -> ExitCode:
    """Write a file as it was to standard output; with --json only what is known about it.

    Example: streamd cat etc:/etc/hosts --at "2026-11-20 14:03"
    """
    return run_async(_write(load_config(), what, at))


async def _write(config: Config, what: str, at: str) -> ExitCode:
    async with open_reader(config) as reader:
        chosen = await select(reader, what)
        if not chosen.path:
            raise UsageInvalid(f'"{what}" names no file: write SOURCE:PATH')
        at_us = await instant(reader, chosen.name, at, config)
        with await reader.state_at(chosen.name, at_us) as state:
            entry = look_up(state, chosen, config)
            version = _regular(entry)
            code = conclude(state, config)
            if is_json():
                report = Report(
                    source=chosen.name,
                    at=format_rfc3339(state.at_us),
                    is_exact=state.is_exact,
                    note=state.note,
                    entry=line_of(entry),
                )
                emit(report, lambda _: "")
                return code
        for flag in flag_names(version):
            if flag != "sparse":
                note(f"this version is {flag}")
        async for data in reader.chunks.content(version):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return code


def _regular(entry: TreeEntry) -> FileVersion:
    """Return the version of a regular file. Raises UsageInvalid for anything else."""
    path = render.name(entry.path)
    if entry.dirent.type == EntryType.DIRECTORY:
        raise UsageInvalid(f"{path} is a directory: list it with streamd ls")
    if entry.version is None:
        raise VaultDamaged(f"the journal lacks the version of {path}")
    if entry.dirent.type == EntryType.SYMLINK:
        raise UsageInvalid(f"{path} is a symbolic link to {render.name(entry.version.target)}")
    if entry.dirent.type != EntryType.REGULAR:
        raise UsageInvalid(f"{path} is no regular file but a {type_name(entry.dirent.type)}")
    return entry.version
