"""The data of the benchmark: deterministic, made once and kept.

    SMALL  100,000 files of 1-16 KiB, text-like (quick: 20,000)
    MIXED  a copy of a real tree of at least 2 GiB from /usr (quick: about 300 MB)
    BIG    one file of 4 GiB, 1 MiB of noise and 1 MiB of words in turn (quick: 512 MiB)

Each comes with its change: 1 % of SMALL's files rewritten, a small tree copied into MIXED, 1 MiB
inserted in the middle of BIG; and with the way back, so that every round begins with the same data,
which has lain still for a while, as data does that is backed up for the first time.
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
FILES_PER_FOLDER = 100
REAL_TREES = (
    "/usr/lib/python3",
    "/usr/include",
    "/usr/bin",
    "/usr/share",
    "/usr/lib",
    "/opt",
    "/root",
)
WORD_COUNT = 4096
STILL_SECONDS = 65
ADDED = ("added", "added-too")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A tree to back up, and how it changes between two backups."""

    name: str
    path: Path
    files: int
    size_bytes: int
    change: Callable[[Path], int]  # changes the tree; returns bytes written
    undo: Callable[[Path], None]


def make(name: str, folder: Path, *, quick: bool) -> Dataset:
    """Return the dataset called `name` below `folder`, made if it is not there yet."""
    path = folder / f"{name.lower()}-{'quick' if quick else 'full'}"
    mark = folder / f"{path.name}.json"
    if not mark.exists():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        _MAKERS[name](path, quick)
        files, size = measure(path)
        mark.write_text(json.dumps({"files": files, "bytes": size}))
    facts = json.loads(mark.read_text())
    data = Dataset(name, path, facts["files"], facts["bytes"], *_CHANGES[name])
    data.undo(path)  # of a run that was interrupted
    return data


def lie_still(path: Path) -> None:
    """Wait until nothing in the tree has changed for a while; report it when that takes long."""
    newest = max(os.lstat(each).st_ctime for each in (path, *path.iterdir()))
    for folder, _, names in os.walk(path):
        newest = max([newest, *(os.lstat(os.path.join(folder, name)).st_ctime for name in names)])
    rest = newest + STILL_SECONDS - time.time()
    if rest > 0:
        print(f"waiting {rest:.0f} s for the data to lie still", file=sys.stderr)
        time.sleep(rest)


def measure(path: Path) -> tuple[int, int]:
    """Return the number of names below `path` and the bytes of their contents."""
    files = size = 0
    for folder, folders, names in os.walk(path):
        files += len(folders) + len(names)
        size += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return files, size


def _small(path: Path, quick: bool) -> None:
    rng = random.Random(1)
    words = Words(rng)
    for number in range(20_000 if quick else 100_000):
        folder = path / f"{number // FILES_PER_FOLDER:04}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir()
        (folder / f"{number:06}.txt").write_bytes(words.text(rng.randrange(1 << 10, 16 << 10)))


def _small_change(path: Path) -> int:
    """Rewrite 1 % of the files; the old ones wait beside the tree."""
    rng = random.Random(2)
    words = Words(rng)
    files = sorted(path.rglob("*.txt"))
    kept, written = _kept(path), 0
    for file in rng.sample(files, len(files) // 100):
        to = kept / file.relative_to(path)
        to.parent.mkdir(parents=True, exist_ok=True)
        file.rename(to)
        written += file.write_bytes(words.text(rng.randrange(1 << 10, 16 << 10)))
    return written


def _kept(path: Path) -> Path:
    return path.parent / f"{path.name}.kept"


def _put_back(path: Path) -> None:
    kept = _kept(path)
    for file in [each for each in kept.rglob("*") if each.is_file()]:
        file.replace(path / file.relative_to(kept))
    shutil.rmtree(kept, ignore_errors=True)


def _remove_added(path: Path) -> None:
    for copy in ADDED:
        shutil.rmtree(path / copy, ignore_errors=True)


class Words:
    """An endless text: lines of invented words, as frequent as words of a language are."""

    def __init__(self, rng: random.Random) -> None:
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        self._rng = rng
        words = [
            "".join(rng.choices(letters, range(26, 0, -1), k=rng.randrange(2, 11)))
            + ("\n" if number % 16 == 15 else " ")
            for number in range(WORD_COUNT)
        ]
        # Two random bytes choose a word: one slot in 65,536 for each share of its frequency.
        total = sum(1 / (rank + 1) for rank in range(WORD_COUNT))
        slots: list[bytes] = []
        for rank, word in enumerate(words):
            slots += [word.encode()] * max(round(65536 / ((rank + 1) * total)), 1)
        rng.shuffle(slots)
        self._slots = (slots + slots)[:65536]

    def text(self, size: int) -> bytes:
        """Return the next `size` bytes; no two calls return the same."""
        parts, length = [], 0
        while length < size:
            drawn = memoryview(self._rng.randbytes((size - length) // 4 * 2 + 32)).cast("H")
            parts.append(b"".join(map(self._slots.__getitem__, drawn)))
            length += len(parts[-1])
        return b"".join(parts)[:size]


def _mixed(path: Path, quick: bool) -> None:
    wanted = 300_000_000 if quick else 2_200_000_000
    copied = 0
    for source in _real_files():
        status = os.lstat(source)
        if quick and status.st_size > 20 * MIB:
            continue
        to = path / source.relative_to("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(source, to, follow_symlinks=False)
        except OSError:  # a socket, or something that went away: no part of the dataset
            continue
        copied += status.st_size
        if copied >= wanted:
            return


def _real_files() -> Iterator[Path]:
    for tree in REAL_TREES:
        for folder, folders, names in os.walk(tree):
            folders.sort()
            if tree == "/usr/lib" and folder == tree:
                folders.remove("python3") if "python3" in folders else None
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_symlink() or file.is_file():
                    yield file


def _mixed_change(path: Path) -> int:
    written = 0
    for copy in ADDED:
        for file in sorted(path.rglob("*.py"))[:400]:
            if not file.is_symlink():
                to = path / copy / file.relative_to(path)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, to)
                written += file.stat().st_size
    return written


def _big(path: Path, quick: bool) -> None:
    rng = random.Random(3)
    with (path / "big").open("wb") as file:
        words = Words(rng)
        for _ in range((512 if quick else 4096) // 2):
            file.write(rng.randbytes(MIB))
            file.write(words.text(MIB))


def _big_change(path: Path) -> int:
    """Insert 1 MiB in the middle, as a copy and a rename do."""
    big, kept = path / "big", _kept(path)
    kept.mkdir(exist_ok=True)
    big.rename(kept / "big")
    half = (kept / "big").stat().st_size // 2
    with (kept / "big").open("rb") as source, big.open("wb") as target:
        _copy(source, target, half)
        target.write(random.Random(4).randbytes(MIB))
        shutil.copyfileobj(source, target, 8 * MIB)
    return MIB


def _copy(source, target, size: int) -> None:
    while size:
        data = source.read(min(8 * MIB, size))
        target.write(data)
        size -= len(data)


_MAKERS = {"SMALL": _small, "MIXED": _mixed, "BIG": _big}
_CHANGES = {
    "SMALL": (_small_change, _put_back),
    "MIXED": (_mixed_change, _remove_added),
    "BIG": (_big_change, _put_back),
}
