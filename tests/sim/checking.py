"""What must hold of a vault, compared with the model that it was captured from."""

import zlib

from sim.scripted import ATTRIBUTE, ModelFs
from sim.simhost import START_US, Machine, Sample

from streamd.errors import NotFound
from streamd.format.segment import FIRST_PREVIOUS
from streamd.model.entry import EntryType, FileVersion, VersionFlag
from streamd.model.ids import ROOT_FID, WriterId
from streamd.model.record import SOURCE_KEY, parse_dirent_key, parse_version_key
from streamd.storage.memory import MemoryBlobStore
from streamd.vault.journal_reader import JournalReader
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import TreeState

LATEST_US = 1 << 60


async def check_journal(machine: Machine, store=None) -> list[str]:
    """The journal is dense, chained and authentic, and times never go back. Returns names."""
    last_us, previous, names = 0, FIRST_PREVIOUS, []
    vault = machine.vault(store)
    async for segment in JournalReader(vault, WriterId(vault.keys.writer)).journal():
        assert segment.previous == previous
        previous = segment.hash
        assert segment.start_us >= last_us
        for record in segment.records(vault.keys.secret_for):
            assert segment.start_us + record.dt_us >= last_us
            last_us = segment.start_us + record.dt_us
        names.append(segment.position)
    return names


def check_shape(state: TreeState) -> None:
    """No orphans, nothing dangling, a directory has one name, everything can be reached."""
    versions, entries = {}, {}
    for key, _ in state.rows():
        fid = parse_version_key(key)
        place = parse_dirent_key(key)
        if fid is not None:
            versions[fid] = state.version(fid)
        elif place is not None:
            entries[place] = state.entry(*place)
        else:
            assert key == SOURCE_KEY
    named: dict[int, int] = {}
    for (parent, _), entry in entries.items():
        assert entry.fid in versions, "an entry names nothing"
        assert parent == ROOT_FID or versions[parent].type == EntryType.DIRECTORY
        assert versions[entry.fid].type == entry.type
        named[entry.fid] = named.get(entry.fid, 0) + 1
    assert named.keys() == versions.keys(), "a version without a name"
    for fid, count in named.items():
        assert count == 1 or versions[fid].type != EntryType.DIRECTORY, "a directory has two names"
    reached = {entry.dirent.fid for entry in state.walk() if entry.path}
    assert reached == versions.keys(), "something cannot be reached"


async def value_of(reader: StateReader, version: FileVersion) -> tuple:
    attribute = dict(version.xattrs).get(ATTRIBUTE, b"")
    if version.type == EntryType.DIRECTORY:
        return (version.type, version.mode, b"", 0, attribute)
    if version.type == EntryType.SYMLINK:
        return (version.type, version.mode, version.target, version.mtime_ns, attribute)
    parts = [bytes(part) async for part in reader.chunks.content(version)]
    return (version.type, version.mode, b"".join(parts), version.mtime_ns, attribute)


async def values_at(reader: StateReader, at_us: int) -> tuple[dict, dict, set]:
    """Return path -> value, path -> fid, and the paths that are fuzzy."""
    values, fids, fuzzy = {}, {}, set()
    with await reader.state_at("sim", at_us) as state:
        assert not state.damage, state.damage
        check_shape(state)
        entries = [entry for entry in state.walk() if entry.path]
    for entry in entries:
        assert entry.version is not None
        values[entry.path] = await value_of(reader, entry.version)
        fids[entry.path] = entry.dirent.fid
        if entry.version.flags & VersionFlag.FUZZY:
            fuzzy.add(entry.path)
    return values, fids, fuzzy


def short(value: tuple | None) -> tuple | None:
    """Return a value as a message may show it."""
    if value is None:
        return None
    kind, mode, content, mtime_ns, attribute = value
    digest = f"{len(content)}:{zlib.crc32(content):x}"
    return (int(kind), oct(mode), digest, mtime_ns % 10**13, attribute)


async def check_final(machine: Machine, store=None) -> None:
    """The vault holds the model as it is, exactly."""
    reader = StateReader(machine.vault(store))
    values, fids, fuzzy = await values_at(reader, LATEST_US)
    nodes = dict(machine.fs.walk())
    for path in values.keys() | nodes.keys():
        expected = nodes[path].value() if path in nodes else None
        assert values.get(path) == expected, (
            f"in the end {path!r} is {short(values.get(path))}, not {short(expected)}; changed"
            f" {[(at - START_US) / 1e6 for at, _ in machine.fs.history.get(path, [])]}"
        )
    assert not fuzzy
    by_ino: dict[int, set] = {}
    by_fid: dict[int, set] = {}
    for path, node in nodes.items():
        by_ino.setdefault(node.ino, set()).add(path)
        by_fid.setdefault(fids[path], set()).add(path)
    groups = sorted(map(sorted, by_ino.values())), sorted(map(sorted, by_fid.values()))
    check_identity(machine, fids, LATEST_US, LATEST_US)
    assert groups[0] == groups[1], [[each for each in one if len(each) > 1] for one in groups]


def compare(fs: ModelFs, values: dict, fuzzy: set, from_us: int, to_us: int, what: str) -> None:
    """Every path is in a state that it had at some time between two instants."""
    for path in fs.history.keys() | values.keys():
        if path in fuzzy:
            continue
        allowed = fs.values_in(path, from_us, to_us)
        value = values.get(path)
        assert value in allowed, (
            f"{what}: {path!r} is {short(value)}, not one of {[short(each) for each in allowed]};"
            f" promised {(from_us - START_US) / 1e6}, now {(to_us - START_US) / 1e6}; history"
            f" {[((at - START_US) / 1e6, short(each)) for at, each in fs.history.get(path, [])]}"
        )


def check_identity(machine: Machine, fids: dict[bytes, int], from_us: int, to_us: int) -> None:
    """No file of the vault is two files of the model: an inode used again is another file."""
    for path, fid in fids.items():
        nodes = set(machine.fs.nodes_in(path, from_us, to_us))
        node = nodes.pop()
        if nodes or node is None:  # it may be either
            continue
        known = machine.known_as.setdefault(fid, node)
        assert known is node, (
            f"file {fid}, {path!r} at {(to_us - START_US) / 1e6}, is inode {node.ino} in its use"
            f" {node.generation}, and was inode {known.ino} in its use {known.generation}"
        )


async def check_sample(machine: Machine, sample: Sample) -> None:
    """What was promised at an instant was kept by what the store held then."""
    if sample.through_us <= START_US or sample.blobs is None:
        return
    gaps = await StateReader(machine.vault()).gaps("sim")
    if any(gap.start_us <= sample.at_us and sample.through_us <= gap.end_us for gap in gaps):
        return
    store = MemoryBlobStore(machine.clock)
    store._blobs = sample.blobs
    await check_journal(machine, store)
    try:
        values, _, fuzzy = await values_at(StateReader(machine.vault(store)), LATEST_US)
    except NotFound:
        values, fuzzy = {}, set()
    what = f"in the {sample.destination} store at {(sample.at_us - START_US) / 1e6}"
    compare(machine.fs, values, fuzzy, sample.through_us, sample.at_us, what)


async def check_past(machine: Machine, sample: Sample) -> None:
    """A restore at that instant gives what was promised then."""
    if sample.through_us <= START_US:
        return
    try:
        gaps = await StateReader(machine.vault()).gaps("sim")
    except NotFound:
        gaps = []
    if any(gap.start_us <= sample.at_us <= gap.end_us for gap in gaps):
        return
    try:
        values, fids, fuzzy = await values_at(StateReader(machine.vault()), sample.at_us)
    except NotFound:
        values, fids, fuzzy = {}, {}, set()
    compare(machine.fs, values, fuzzy, sample.through_us, sample.at_us, f"at {sample.at_us}")
    check_identity(machine, fids, sample.through_us, sample.at_us)
