"""The data of the benchmark: deterministic, made once and kept.

    SMALL  100,000 files of 1-16 KiB, text-like (quick: 20,000)
    MIXED  a copy of a real tree of at least 2 GiB from /usr (quick: about 300 MB)
    BIG    one file of 4 GiB, 1 MiB of noise and 1 MiB of words in turn (quick: 512 MiB)

Each comes with its change: 1 % of SMALL's files rewritten, a small tree copied into MIXED, 1 MiB
inserted in the middle of BIG.
"""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
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


@dataclass(frozen=True, slots=True)
class Dataset:
    """A tree to back up, and how it changes between two backups."""

    name: str
    path: Path
    files: int
    size_bytes: int
    change: Callable[[Path], int]  # changes the tree; returns bytes written


def make(name: str, folder: Path, *, quick: bool) -> Dataset:
    """Return a fresh copy of the dataset called `name`; the original below `folder` is kept."""
    original = folder / f"{name.lower()}-{'quick' if quick else 'full'}"
    mark = folder / f"{original.name}.json"
    if not mark.exists():
        shutil.rmtree(original, ignore_errors=True)
        original.mkdir(parents=True)
        _MAKERS[name](original, quick)
        files, size = measure(original)
        mark.write_text(json.dumps({"files": files, "bytes": size}))
    facts = json.loads(mark.read_text())
    path = folder / "data" / name.lower()
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(original), str(path)], check=True)
    return Dataset(name, path, facts["files"], facts["bytes"], _CHANGES[name])


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
    rng = random.Random(2)
    words = Words(rng)
    files = sorted(path.rglob("*.txt"))
    written = 0
    for file in rng.sample(files, len(files) // 100):
        written += file.write_bytes(words.text(rng.randrange(1 << 10, 16 << 10)))
    return written


class Words:
    """An endless text: lines of invented words, as frequent as words of a language are."""

    def __init__(self, rng: random.Random) -> None:
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        self._rng = rng
        self._words = [
            "".join(rng.choices(letters, range(26, 0, -1), k=rng.randrange(2, 11)))
            + ("\n" if number % 16 == 15 else " ")
            for number in range(WORD_COUNT)
        ]
        weights = (1 / (rank + 1) for rank in range(WORD_COUNT))
        self._cumulative = list(accumulate(weights))

    def text(self, size: int) -> bytes:
        """Return the next `size` bytes; no two calls return the same."""
        parts, length = [], 0
        while length < size:
            wanted = (size - length) // 4 + 8
            part = "".join(self._rng.choices(self._words, cum_weights=self._cumulative, k=wanted))
            parts.append(part)
            length += len(part)
        return "".join(parts).encode()[:size]


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
    for copy in ("added", "added-too"):
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
    big, new = path / "big", path / "big.new"
    half = big.stat().st_size // 2
    with big.open("rb") as source, new.open("wb") as target:
        _copy(source, target, half)
        target.write(random.Random(4).randbytes(MIB))
        shutil.copyfileobj(source, target, 8 * MIB)
    new.replace(big)
    return MIB


def _copy(source, target, size: int) -> None:
    while size:
        data = source.read(min(8 * MIB, size))
        target.write(data)
        size -= len(data)


_MAKERS = {"SMALL": _small, "MIXED": _mixed, "BIG": _big}
_CHANGES = {"SMALL": _small_change, "MIXED": _mixed_change, "BIG": _big_change}
