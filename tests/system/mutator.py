"""A seeded random mutator of a directory tree that writes down everything it does.

    python -m system.mutator DIR --seed 7 --seconds 60 --rate 500 --log FILE

Every line of the log is one operation: start and end on the wall clock in microseconds, and for
each path that it touched the states the path went through, the last one being the state it stays
in. `system.oracle` rebuilds from it what each path may have been at any instant. The tree must be
empty at the start; what moves "out of the tree" goes to a folder beside it and may come back.
SIGTERM ends a run after the operation at hand.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from system.model import File, Folder, Node, Symlink, text
from system.shadow import Effects, Place, Shadow, below

# weights of the operations; "small" is a mail spool, "append" is a host full of logs
PROFILES: dict[str, dict[str, int]] = {
    "mixed": {
        "create": 22, "overwrite": 12, "replace": 10, "patch": 8, "append": 14, "truncate": 5,
        "rename": 8, "rename_over": 3, "rename_folder": 2, "move_out": 1, "move_in": 2,
        "delete": 9, "delete_tree": 1, "chmod": 5, "chown": 2, "utime": 3, "xattr": 3, "link": 4,
        "symlink": 3, "mkdir": 5,
    },
    "small": {
        "create": 55, "replace": 10, "append": 3, "rename": 15, "rename_folder": 1, "delete": 30,
        "chmod": 2, "mkdir": 3, "link": 1,
    },
    "append": {"create": 4, "append": 70, "delete": 2, "replace": 4, "rename": 2, "truncate": 1},
}  # fmt: skip
ODD_NAMES = (
    b"with space",
    b"new\nline",
    b"\xff\xfe-not-utf8",
    b"-rf",
    b"\xc3\xa4\xe2\x82\xac",
    b"a" * 120,
)
LINES_PER_FLUSH = 64


class Mutator(Shadow):
    """Changes the tree at `root`; the same seed does the same operations in the same order."""

    def __init__(
        self, root: str, *, seed: int, log: TextIO, profile: str = "mixed", population: int = 600
    ) -> None:
        super().__init__(root, seed=seed)
        self._noise = self._rng.randbytes(1 << 20)
        self._log = log
        self._population = population
        self._profile = profile
        self._serial = 0
        self.counts: Counter[str] = Counter()
        weights = PROFILES[profile]
        self._names = list(weights)
        self._cumulative = [sum(list(weights.values())[: i + 1]) for i in range(len(weights))]

    # -- driving ---------------------------------------------------------------------------------

    def populate(self) -> None:
        """Create files until the population is reached."""
        while len(self._files) < self._population:
            self._perform("mkdir" if self._rng.random() < 0.04 else "create")
        self._log.flush()

    def step(self) -> None:
        """Do one operation, chosen at random so that the population stays about constant."""
        name = self._rng.choices(self._names, cum_weights=self._cumulative)[0]
        crowd = len(self._files) / self._population
        if name in {"delete", "delete_tree", "move_out"} and crowd < 0.7:
            name = "create"
        elif name == "create" and crowd > 1.3:
            name = "delete"
        self._perform(name)

    def run(self, seconds: float, rate: float, stop: Callable[[], bool] = bool) -> None:
        """Do `rate` operations a second (0: as many as possible) for so long or until `stop()`."""
        begin = time.monotonic()
        done = 0
        while not stop() and (now := time.monotonic()) < begin + seconds:
            ahead = begin + done / rate - now if rate else 0.0
            if ahead > 0:
                self._log.flush()
                time.sleep(min(ahead, 0.05))
                continue
            self.step()
            done += 1
        self._log.flush()

    def _perform(self, name: str) -> None:
        effects: Effects = {}
        start = time.time_ns() // 1000
        done = getattr(self, f"_{name}")(effects)
        end = time.time_ns() // 1000 + 1
        if done is False:  # nothing to do it with
            return
        self.counts[name] += 1
        self._serial += 1
        changes = [[text(path), states] for path, states in effects.items()]
        line = {"n": self._serial, "op": name, "start": start, "end": end, "effects": changes}
        self._log.write(json.dumps(line, separators=(",", ":")) + "\n")
        if self._serial % LINES_PER_FLUSH == 0:
            self._log.flush()

    # -- choosing --------------------------------------------------------------------------------

    def _fresh_name(self) -> bytes:
        number = b"%x" % self._rng.getrandbits(40)
        if self._rng.random() < 0.05:
            return self._rng.choice(ODD_NAMES) + number
        return b"f" + number

    def _bytes(self) -> bytes:
        rng = self._rng
        if self._profile == "append":
            size = rng.choice((4 << 10, 64 << 10, 256 << 10))
        elif self._profile == "small":
            size = rng.randrange(64, 4096)
        else:
            size = rng.choice((0, 1, 100, 1000, 5000, 20_000, 4096, 70_000))
        at = rng.randrange(len(self._noise) - size)
        return b"%x " % rng.getrandbits(64) * (size > 20) + self._noise[at : at + size]

    def _settled(self, node: File, effects: Effects, descriptor: int) -> None:
        node.mtime_ns = os.fstat(descriptor).st_mtime_ns
        self._sees(node, effects, node.state())

    # -- operations on files ---------------------------------------------------------------------

    def _write_new(self, place: Place, effects: Effects) -> File:
        folder, name = place
        node = File(self._rng.choice((0o644, 0o600, 0o755)))
        data = self._bytes()
        descriptor = os.open(
            self._full(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, node.mode
        )
        try:
            folder.put(name, node)
            self._sees(node, effects, node.state())
            os.write(descriptor, data)
            node.set(data)
            self._settled(node, effects, descriptor)
        finally:
            os.close(descriptor)
        return node

    def _create(self, effects: Effects) -> None:
        place = self._some_place(self._fresh_name())
        self._write_new(place, effects)
        self._files.add(place)

    def _opened(self, effects: Effects, flags: int, change: Callable[[File, int], None]) -> bool:
        found = self._any_file()
        if found is None:
            return False
        folder, name, node = found
        descriptor = os.open(self._full(folder, name), os.O_WRONLY | flags)
        try:
            if flags & os.O_TRUNC:
                node.set(b"")
                node.mtime_ns = None
                self._sees(node, effects, node.state())
            change(node, descriptor)
            self._settled(node, effects, descriptor)
        finally:
            os.close(descriptor)
        return True

    def _overwrite(self, effects: Effects) -> bool:
        def change(node: File, descriptor: int) -> None:
            data = self._bytes()
            os.write(descriptor, data)
            node.set(data)

        return self._opened(effects, os.O_TRUNC, change)

    def _patch(self, effects: Effects) -> bool:
        def change(node: File, descriptor: int) -> None:
            if node.data is None:
                return
            piece = self._rng.randbytes(self._rng.randrange(1, 3000))
            at = self._rng.randrange(node.size + 1)
            os.pwrite(descriptor, piece, at)
            node.set(node.data[:at] + piece + node.data[at + len(piece) :])

        return self._opened(effects, 0, change)

    def _append(self, effects: Effects) -> bool:
        def change(node: File, descriptor: int) -> None:
            data = self._bytes()
            os.write(descriptor, data)
            node.append(data)

        return self._opened(effects, os.O_APPEND, change)

    def _truncate(self, effects: Effects) -> bool:
        def change(node: File, descriptor: int) -> None:
            if node.data is None:
                size = 0
            elif self._rng.random() < 0.2:
                size = min(node.size + self._rng.randrange(200_000), File.LARGE_BYTES)
            else:
                size = self._rng.randrange(node.size + 1)
            os.ftruncate(descriptor, size)
            node.set((node.data or b"")[:size].ljust(size, b"\0"))

        return self._opened(effects, 0, change)

    def _replace(self, effects: Effects) -> bool:
        """Write a temporary file and rename it over an old one, as editors do."""
        found = self._any_file()
        if found is None:
            return False
        folder, name, _ = found
        temporary = (folder, b".new-" + self._fresh_name())
        self._write_new(temporary, effects)
        self._move_over(temporary, (folder, name), effects)
        return True

    def _rename_over(self, effects: Effects) -> bool:
        first, second = self._any_file(), self._any_file()
        if first is None or second is None or first[2] is second[2]:
            return False  # rename(2) of two names of one inode does nothing
        self._files.discard(first[:2])
        self._move_over(first[:2], second[:2], effects)
        return True

    def _move_over(self, source: Place, target: Place, effects: Effects) -> None:
        os.rename(self._full(*source), self._full(*target))
        target[0].take(target[1])
        self._rehang(source, target, effects)

    def _rename(self, effects: Effects) -> bool:
        found = self._any_file()
        if found is None:
            return False
        source, target = found[:2], self._some_place(self._fresh_name())
        os.rename(self._full(*source), self._full(*target))
        self._files.discard(source)
        self._rehang(source, target, effects)
        self._files.add(target)
        return True

    def _delete(self, effects: Effects) -> bool:
        pool = self._links if len(self._links) and self._rng.random() < 0.15 else self._files
        if not len(pool):
            return False
        self._unlink(pool.choice(self._rng), effects)
        return True

    # -- attributes and links --------------------------------------------------------------------

    def _chmod(self, effects: Effects) -> bool:
        node: Node
        if self._rng.random() < 0.2:
            folder = self._folders.choice(self._rng)
            if folder is self._home:
                return False
            ((above, name),) = folder.places
            node, full = folder, self._full(above, name)
            mode = self._rng.choice((0o755, 0o700, 0o1777, 0o2775))
        else:
            found = self._any_file()
            if found is None:
                return False
            node, full = found[2], self._full(*found[:2])
            mode = self._rng.choice((0o644, 0o600, 0o444, 0o755, 0o000, 0o4755))
        os.chmod(full, mode)
        node.mode = mode
        self._sees(node, effects, node.state())
        return True

    def _chown(self, effects: Effects) -> bool:
        found = self._any_file()
        if found is None or os.geteuid() != 0:
            return False
        node, full = found[2], self._full(*found[:2])
        os.chown(full, uid := self._rng.randrange(3000), gid := self._rng.randrange(3000))
        node.uid, node.gid = uid, gid
        node.mode = os.stat(full).st_mode & 0o7777  # chown clears the set-id bits
        self._sees(node, effects, node.state())
        return True

    def _utime(self, effects: Effects) -> bool:
        found = self._any_file()
        if found is None:
            return False
        node, full = found[2], self._full(*found[:2])
        node.mtime_ns = self._rng.randrange(1, 2 * 10**18)
        os.utime(full, ns=(node.mtime_ns, node.mtime_ns))
        self._sees(node, effects, node.state())
        return True

    def _xattr(self, effects: Effects) -> bool:
        found = self._any_file()
        if found is None:
            return False
        node, full = found[2], self._full(*found[:2])
        name = f"user.{self._rng.choice('abc')}"
        if name in node.xattrs and self._rng.random() < 0.3:
            os.removexattr(full, name)
            del node.xattrs[name]
        else:
            node.xattrs[name] = self._rng.randbytes(self._rng.randrange(100))
            os.setxattr(full, name, node.xattrs[name])
        self._sees(node, effects, node.state())
        return True

    def _link(self, effects: Effects) -> bool:
        found = self._any_file()
        if found is None:
            return False
        target = self._some_place(self._fresh_name())
        os.link(self._full(*found[:2]), self._full(*target))
        target[0].put(target[1], found[2])
        self._files.add(target)
        self._sees(found[2], effects, found[2].state())
        return True

    def _symlink(self, effects: Effects) -> None:
        place = self._some_place(self._fresh_name())
        node = Symlink(self._rng.choice((b"..", b"/nowhere", b"x\xff/" + self._fresh_name())))
        os.symlink(node.target, self._full(*place))
        place[0].put(place[1], node)
        self._links.add(place)
        self._sees(node, effects, node.state())

    # -- folders ---------------------------------------------------------------------------------

    def _mkdir(self, effects: Effects) -> bool:
        if len(self._folders) > max(8, self._population // 10):
            return False
        folder, name = self._some_place(self._fresh_name())
        node = Folder(0o755)
        os.mkdir(self._full(folder, b"d" + name), node.mode)
        node.mode = (
            os.stat(self._full(folder, b"d" + name)).st_mode & 0o7777
        )  # set-gid is inherited
        folder.put(b"d" + name, node)
        self._folders.add(node)
        self._sees(node, effects, node.state())
        return True

    def _rename_folder(self, effects: Effects) -> bool:
        found = self._some_folder()
        if found is None:
            return False
        folder, source = found
        target = (self._folders.choice(self._rng), b"r" + self._fresh_name())
        if folder.contains(target[0]):
            return False
        os.rename(self._full(*source), self._full(*target))
        self._pools(source, folder, add=False)
        self._rehang(source, target, effects)
        self._pools(target, folder, add=True)
        return True

    def _move_out(self, effects: Effects) -> bool:
        if self._rng.random() < 0.5:
            file = self._any_file()
            if file is None:
                return False
            source, node = file[:2], file[2]
        else:
            found = self._some_folder()
            if found is None:
                return False
            node, source = found
        target = (self._away, self._fresh_name())
        os.rename(self._full(*source), self._full(*target))
        self._pools(source, node, add=False)
        self._rehang(source, target, effects)
        return True

    def _move_in(self, effects: Effects) -> bool:
        if not self._away.children:
            return False
        source = (self._away, self._rng.choice(list(self._away.children)))
        node = self._away.children[source[1]]
        target = (self._folders.choice(self._rng), b"i" + self._fresh_name())
        os.rename(self._full(*source), self._full(*target))
        self._rehang(source, target, effects)
        self._pools(target, node, add=True)
        return True

    def _delete_tree(self, effects: Effects) -> bool:
        found = self._some_folder()
        if found is None:
            return False
        folder, place = found
        for above, name, node in reversed(list(below(place, folder))):
            if isinstance(node, Folder):
                os.rmdir(self._full(above, name))
                self._gone((above, name), node, effects)
                above.take(name)
                self._folders.discard(node)
            else:
                self._unlink((above, name), effects)
        return True


def main() -> None:
    """Populate, wait for a line on standard input unless it is a terminal, run, summarise."""
    parser = argparse.ArgumentParser(prog="system.mutator", description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=500, help="operations a second; 0: no limit")
    parser.add_argument("--log", required=True)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="mixed")
    parser.add_argument("--population", type=int, default=600)
    options = parser.parse_args()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    os.umask(0)
    with open(options.log, "w", encoding="ascii", buffering=1 << 20) as log:
        mutator = Mutator(
            options.root,
            seed=options.seed,
            log=log,
            profile=options.profile,
            population=options.population,
        )
        mutator.populate()
        print("populated", flush=True)
        if not sys.stdin.isatty() and not stopping:
            sys.stdin.readline()
        begin, before = time.monotonic(), mutator.counts.total()
        mutator.run(options.seconds, options.rate, lambda: bool(stopping))
        elapsed = time.monotonic() - begin
    done = mutator.counts.total() - before
    rate = done / max(elapsed, 1e-9)
    summary = {"operations": done, "seconds": elapsed, "per_second": rate}
    print(json.dumps({**summary, "by_name": mutator.counts}))


if __name__ == "__main__":
    main()
