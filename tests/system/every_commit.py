"""The state that the vault holds at every one of its commits, without restoring anything to disk.

A restore at some twenty instants is what a user does; that a whole minute is right needs a look at
every state that could have been restored. Each commit is judged twice: at the instant that it
says, and right before the next one, when what it holds is oldest.

    python -m system.every_commit WORKDIR TREE LOG RPO     says what is wrong, by kind
"""

import asyncio
import hashlib
import os
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from system.model import xattr_digest
from system.oracle import Facts, Oracle, Violation

from streamd.config.load import load
from streamd.daemon.compose import open_vault_for_reading
from streamd.model.entry import Dirent, EntryType, FileVersion, VersionFlag
from streamd.model.ids import ROOT_FID
from streamd.model.record import Gap, Op, parse_dirent_key, parse_version_key
from streamd.vault.state_reader import StateReader

_KINDS = {
    EntryType.REGULAR: "file",
    EntryType.DIRECTORY: "directory",
    EntryType.SYMLINK: "symlink",
    EntryType.FIFO: "fifo",
}


@dataclass
class Commit:
    """What a restore would show from `at_us` until right before `until_us`."""

    at_us: int
    until_us: int
    shown: dict[bytes, Facts]
    linked: dict[bytes, tuple[bytes, ...]]
    fuzzy: set[bytes]


class Replay:
    """The journal of one source, replayed."""

    def __init__(self, reader: StateReader, tree: Path) -> None:
        self._reader = reader
        self._top = os.fsencode(tree)
        self._versions: dict[int, FileVersion] = {}
        self._children: dict[int, dict[bytes, Dirent]] = defaultdict(dict)
        self._facts: dict[FileVersion, Facts] = {}
        self.gaps: list[Gap] = []

    async def commits(self, source: str) -> AsyncIterator[Commit]:
        """Yield the state after every instant at which something was recorded."""
        last_us = 0
        async for at_us, record in self._reader.changes(source, 0, 1 << 60):
            if at_us != last_us and last_us and record.op in {Op.SET, Op.DEL}:
                yield await self._commit(last_us, at_us)
            if record.op in {Op.SET, Op.DEL}:
                last_us = at_us
                self._apply(record.op, record.key, record.value)
            elif record.op == Op.GAP:
                self.gaps.append(msgspec.msgpack.decode(record.value, type=Gap))
        yield await self._commit(last_us, 1 << 60)

    def _apply(self, op: int, key: bytes, value: bytes) -> None:
        place, fid = parse_dirent_key(key), parse_version_key(key)
        if place is not None:
            parent, name = place
            if op == Op.SET:
                self._children[parent][name] = msgspec.msgpack.decode(value, type=Dirent)
            else:
                self._children[parent].pop(name, None)
        elif fid is not None:
            if op == Op.SET:
                self._versions[fid] = msgspec.msgpack.decode(value, type=FileVersion)
            else:
                self._versions.pop(fid, None)

    async def _commit(self, at_us: int, until_us: int) -> Commit:
        shown: dict[bytes, Facts] = {}
        names: dict[int, list[bytes]] = defaultdict(list)
        fuzzy: set[bytes] = set()
        top = self._children[ROOT_FID].get(self._top)
        stack = [(b"", top.fid)] if top is not None else []
        while stack:
            path, fid = stack.pop()
            for name, dirent in self._children.get(fid, {}).items():
                below = path + b"/" + name if path else name
                version = self._versions[dirent.fid]
                shown[below] = await self._facts_of(version)
                if version.flags & VersionFlag.FUZZY:
                    fuzzy.add(below)
                if dirent.type == EntryType.DIRECTORY:
                    stack.append((below, dirent.fid))
                else:
                    names[dirent.fid].append(below)
        groups = [tuple(sorted(each)) for each in names.values() if len(each) > 1]
        linked = {path: group for group in groups for path in group}
        return Commit(at_us, until_us, shown, linked, fuzzy)

    async def _facts_of(self, version: FileVersion) -> Facts:
        facts = self._facts.get(version)
        if facts is None:
            kind = EntryType(version.type)
            is_file = kind is EntryType.REGULAR
            digest = hashlib.blake2b(digest_size=12)
            if is_file:
                async for part in self._reader.chunks.content(version):
                    digest.update(part)
            xattrs = tuple((os.fsdecode(name), value) for name, value in version.xattrs)
            facts = (
                _KINDS.get(kind, "other"),
                stat.S_IMODE(version.mode),
                version.uid,
                version.gid,
                version.size if is_file else 0,
                digest.hexdigest() if is_file else "",
                version.mtime_ns if is_file else None,
                version.target,
                xattr_digest(xattrs),
            )
            self._facts[version] = facts
        return facts


@dataclass
class Wrong:
    """A path that is wrong in one commit."""

    at_us: int
    violation: Violation
    late_us: int  # by how much more time it would have been right; 0: it never would
    in_gap: bool = False  # nothing was promised at that instant


@dataclass
class Verdict:
    """What came of judging a whole journal."""

    commits: int = 0
    judged: int = 0
    fuzzy: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)  # seconds between commits
    spans: list[Gap] = field(default_factory=list)

    @property
    def gaps(self) -> list[tuple[str, float]]:
        """Reason and seconds of every gap."""
        return [(gap.reason, (gap.end_us - gap.start_us) / 1e6) for gap in self.spans]

    def is_in_gap(self, at_us: int) -> bool:
        """Whether nothing is promised at an instant."""
        return any(gap.start_us <= at_us <= gap.end_us for gap in self.spans)


async def judge(
    config: Path, tree: Path, log: Path, *, rpo_us: int, from_us: int, to_us: int
) -> Verdict:
    """Judge every commit of the source "tree" between two instants."""
    oracle, verdict = Oracle(log), Verdict()
    async with open_vault_for_reading(load(str(config))) as vault:
        replay = Replay(StateReader(vault), tree)
        async for commit in replay.commits("tree"):
            if not from_us <= commit.at_us <= to_us:
                continue
            until_us = min(commit.until_us - 1, to_us)
            verdict.commits += 1
            verdict.judged += len(commit.shown)
            verdict.fuzzy += len(commit.fuzzy)
            verdict.delays.append((until_us - commit.at_us) / 1e6)
            for at_us in (commit.at_us, until_us):
                since_us = at_us - rpo_us
                for each in oracle.judge_shown(
                    commit.shown, commit.linked, since_us=since_us, until_us=at_us
                ):
                    if each.path not in commit.fuzzy:
                        late_us = _late(oracle, commit, each.path, since_us, at_us)
                        verdict.wrong.append(Wrong(at_us, each, late_us))
    verdict.spans = [gap for gap in replay.gaps if gap.end_us >= from_us and gap.start_us <= to_us]
    for wrong in verdict.wrong:
        wrong.in_gap = verdict.is_in_gap(wrong.at_us)
    return verdict


async def gaps_of(config: Path, source: str) -> list[Gap]:
    """Return the gaps that the vault declares for a source."""
    async with open_vault_for_reading(load(str(config))) as vault:
        return await StateReader(vault).gaps(source)


def _late(oracle: Oracle, commit: Commit, path: bytes, since_us: int, at_us: int) -> int:
    """Return by how much more time the path would have been right, 0 if by none up to a minute."""
    for late_us in (*range(100_000, 4_000_000, 100_000), 10_000_000, 60_000_000):
        if oracle.judge_path(path, commit.shown.get(path), since_us - late_us, at_us):
            return late_us
    return 0


def main() -> None:
    """Say what is wrong, by kind."""
    workdir, tree, log, rpo = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    verdict = asyncio.run(
        judge(
            workdir / "streamd.toml",
            tree,
            log,
            rpo_us=int(float(rpo) * 1e6),
            from_us=0,
            to_us=1 << 60,
        )
    )
    print(f"{verdict.commits} commits, {verdict.judged} judged, {verdict.fuzzy} fuzzy")
    print("seconds between commits:", sorted(round(each, 2) for each in verdict.delays)[-12:])
    print("gaps:", verdict.gaps)
    kinds = Counter((each.violation.fault, each.late_us > 0, each.in_gap) for each in verdict.wrong)
    for (fault, late, in_gap), count in kinds.most_common():
        print(f"{count:6} {fault}{' (late only)' * late}{' in a gap' * in_gap}")
    print("late by (ms):", Counter(each.late_us // 1000 for each in verdict.wrong if each.late_us))
    for each in [each for each in verdict.wrong if not each.late_us and not each.in_gap][:40]:
        print(each.at_us, str(each.violation)[:1200])


if __name__ == "__main__":
    main()
