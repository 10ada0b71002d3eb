"""Two readers that share no code agree about any vault: streamd, and the script stored in vaults.

I13 of the format's design: whatever the history, whatever is missing or damaged, at any instant.
STREAMD_RESCUE_HISTORIES says how many histories (default 15, 40 in CI).
"""

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rescue_script import load
from system.tree import Entry, difference, listing
from vaultbuilder import START_US, TICK_US, VaultBuilder, version_of

from streamd.effects import SystemClock
from streamd.errors import StreamdError
from streamd.format.keys import encode_host_key
from streamd.model.entry import ContentRun, EntryType
from streamd.restore.session import RestoreRequest, RestoreSession, Selection
from streamd.storage.local import LocalBlobStore

rescue = load()
HISTORIES = int(os.environ.get("STREAMD_RESCUE_HISTORIES", "40" if os.environ.get("CI") else "15"))
ROOTS = (b"/srv/www", b"/etc/x")
CHUNK = 700  # small chunks: long lists and chunk-list pages without megabytes


class History:
    """A random past of one source, written like streamd writes."""

    def __init__(self, seed: int, root: Path, roots: tuple[bytes, ...]) -> None:
        self.rng = random.Random(seed)
        self.root = root
        self.builder = VaultBuilder(LocalBlobStore(root / "vault", create=True), chunk=CHUNK)
        self.source = self.builder.source("web", *roots)
        self.files: list[bytes] = []
        self.links: dict[bytes, list[bytes]] = {}
        self.directories = list(roots)
        self.checkpoints: list[tuple[int, int]] = []  # time, segments before it
        self.segments: list[str] = []
        self.roots = roots

    async def write(self, steps: int) -> None:
        await self.builder.install()
        for path in self.roots:
            self.source.directory(path, mtime_ns=self.rng.randrange(1 << 60))
        await self.commit()
        for _ in range(steps):
            await self.step()
        await self.commit()

    async def commit(self) -> None:
        if self.builder.records:
            packed = self.rng.random() < 0.4
            self.segments.append(await self.builder.commit(packed=packed))

    async def step(self) -> None:
        kind = self.rng.choices(
            ["file", "edit", "directory", "delete", "link", "symlink", "sparse", "node", "long",
             "checkpoint", "epoch", "gap", "commit"],
            [6, 6, 3, 4, 2, 1, 1, 1, 1, 2, 1, 1, 6],
        )[0]  # fmt: skip
        if kind in {"checkpoint", "epoch", "commit"}:
            await self.commit()
        if kind == "checkpoint":
            await self.source.checkpoint()
            self.checkpoints.append((self.builder.clock.us, len(self.segments)))
        elif kind == "epoch":
            await self.builder.new_epoch()
        elif kind != "commit":
            getattr(self, f"do_{kind}")()

    def fresh(self) -> bytes:
        parent = self.rng.choice(self.directories)
        letters = self.rng.choice([b"abc", b"\xff\xfe", "ü €".encode(), b"new\nline"])
        return parent + b"/" + letters + b"%x" % self.rng.randrange(1 << 32)

    def facts(self) -> dict[str, object]:
        rng = self.rng
        return {
            "mode": rng.choice([0o644, 0o600, 0o4755, 0o000]),
            "uid": rng.choice([0, 1000]),
            "gid": rng.choice([0, 1000]),
            "mtime_ns": rng.randrange(-(10**18), 10**18),
            "xattrs": ((b"user.k", rng.randbytes(9)),) if rng.random() < 0.2 else (),
        }

    def content(self) -> bytes:
        return self.rng.randbytes(self.rng.choice([0, 1, 10, 699, 700, 3000]))

    def do_file(self) -> None:
        path = self.fresh()
        self.source.file(path, self.content(), **self.facts())
        self.files.append(path)

    def do_edit(self) -> None:
        if self.files:
            path = self.rng.choice(self.files)
            count = len(self.links.get(path, ())) + 1
            self.source.file(path, self.content(), nlink=count, **self.facts())

    def do_long(self) -> None:
        path = self.fresh()
        self.source.file(path, self.rng.randbytes(CHUNK * self.rng.randrange(60, 200)))
        self.files.append(path)

    def do_directory(self) -> None:
        path = self.fresh()
        self.source.directory(path, mode=self.rng.choice([0o755, 0o500, 0o2770]))
        self.directories.append(path)

    def do_delete(self) -> None:
        single = [path for path in self.files if path not in self.links]
        if single:
            path = self.rng.choice(single)
            self.files.remove(path)
            self.source.delete(path)

    def do_link(self) -> None:
        if self.files:
            path, other = self.rng.choice(self.files), self.fresh()
            names = self.links.setdefault(path, [])
            names.append(other)
            self.source.file(path, self.content(), nlink=len(names) + 1, **self.facts())
            self.source.link(other, path)

    def do_symlink(self) -> None:
        self.source.symlink(self.fresh(), self.rng.choice([b"/etc/passwd", b"..", b"\xff"]))

    def do_sparse(self) -> None:
        some = self.builder.store_content(self.rng.randbytes(2000))
        self.source.runs_file(self.fresh(), [ContentRun(None, 1 << 20), *some, ContentRun(None, 9)])

    def do_node(self) -> None:
        kind = self.rng.choice([EntryType.FIFO, EntryType.SOCKET])
        self.source.entry(self.fresh(), version_of(kind, mode=0o640))

    def do_gap(self) -> None:
        self.source.gap(self.builder.clock.us, self.builder.clock.us + 5)

    async def thin(self) -> None:
        """Let go of the journal in front of a checkpoint, as retention does."""
        if self.checkpoints:
            _, count = self.rng.choice(self.checkpoints)
            for name in self.segments[: self.rng.randrange(count + 1)]:
                path = self.root / "vault" / name
                if path.exists() and not await self.holds_content(path):
                    path.unlink()

    async def holds_content(self, path: Path) -> bool:
        envelope = rescue.Envelope(path.read_bytes(), "J")
        return bool({"i", "mi"} & envelope.sections.keys())

    def harm(self) -> None:
        """Damage, cut, remove or exchange an object, or add junk."""
        objects = sorted(p for p in (self.root / "vault" / "d").rglob("*") if p.is_file())
        path = self.rng.choice(objects)
        data = bytearray(path.read_bytes())
        kind = self.rng.randrange(5)
        if kind == 0:
            path.unlink()
        elif kind == 1:
            path.write_bytes(data[: self.rng.randrange(len(data))])
        elif kind == 2:
            path.write_bytes(self.rng.choice(objects).read_bytes())
        elif kind == 3:
            (path.parent / self.rng.choice(["junk", "0" * 12, path.name[:-1] + "a"])).write_bytes(
                data
            )
        else:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            path.write_bytes(data)

    def instants(self) -> list[int]:
        last = self.builder.clock.us + 2 * TICK_US
        return [last, *(self.rng.randrange(START_US - TICK_US, last) for _ in range(3))]


async def restored(history: History, at_us: int, target: Path) -> bool:
    """Restore with streamd; say whether there was anything to restore."""
    request = RestoreRequest(selections=[Selection("web")], at_us=at_us, target=os.fsencode(target))
    try:
        await RestoreSession(history.builder.vault, request, clock=SystemClock()).run()
    except StreamdError:
        return False
    return True


def rescued(history: History, at_us: int, target: Path) -> bool:
    """Restore with the script; say whether there was anything to restore."""
    key = history.root / "key"
    key.write_bytes(encode_host_key(history.builder.host_key))
    options = rescue.parsed(
        [
            "restore",
            "web",
            str(target),
            "--key-file",
            str(key),
            "--vault",
            str(history.root / "vault"),
        ]
    )
    vault = rescue.open_vaults(options, rescue.Report())[0]
    try:
        state = vault.state_at(history.source.id, at_us)
        rescue.Restore(vault, options).run(state, state.find(b""))
    except rescue.Fault:
        return False
    return True


def compare(history: History) -> None:
    for number, at_us in enumerate(history.instants()):
        ours, theirs = history.root / f"ours-{number}", history.root / f"theirs-{number}"
        was_there = asyncio.run(restored(history, at_us, ours))
        assert rescued(history, at_us, theirs) == was_there, at_us
        if was_there:
            assert difference(promised(ours, history), promised(theirs, history)) == [], at_us


def promised(target: Path, history: History) -> dict[bytes, Entry]:
    """Return what came back; directories that only lead to a root have no metadata of their own."""
    found = listing(target)
    if len(history.roots) > 1:
        for on_the_way in (b".", *(os.path.dirname(path)[1:] for path in history.roots)):
            found.pop(on_the_way, None)
    return found


@pytest.mark.root
@settings(max_examples=HISTORIES, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 60),
    thin=st.booleans(),
    harm=st.integers(0, 2),
    roots=st.sampled_from([ROOTS[:1], ROOTS]),
)
def test_the_rescue_script_restores_what_streamd_restores(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int, thin: bool, harm: int, roots
) -> None:
    root = tmp_path_factory.mktemp("history")
    try:
        history = History(seed, root, roots)
        asyncio.run(history.write(steps))
        if thin:
            asyncio.run(history.thin())
        for _ in range(harm):
            history.harm()
        compare(history)
    finally:
        shutil.rmtree(root)
