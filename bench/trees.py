"""Trees of many small files, and somebody who changes files in them at a steady rate."""

import json
import random
import shutil
import threading
import time
from pathlib import Path

FILES_PER_FOLDER = 1000
FILE_BYTES = 200
_TICK_SECONDS = 0.01


def many_files(folder: Path, count: int) -> Path:
    """Return a tree of `count` files of 200 bytes, no two alike; made if it is not there yet."""
    path, mark = folder / f"files-{count}", folder / f"files-{count}.json"
    if not mark.exists():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        for number in range(count):
            if number % FILES_PER_FOLDER == 0:
                (path / f"{number // FILES_PER_FOLDER:05}").mkdir()
            file_of(path, number).write_bytes(_content(number))
        mark.write_text(json.dumps({"files": count}))
    return path


def file_of(tree: Path, number: int) -> Path:
    """Return the path of one file of a tree."""
    return tree / f"{number // FILES_PER_FOLDER:05}" / f"{number:07}.txt"


def _content(seed: int) -> bytes:
    return random.Random(seed).randbytes(FILE_BYTES // 2).hex().encode()


class Changing:
    """Rewrites files in place, `rate` a second, each in its turn. Use it as a context."""

    def __init__(self, tree: Path, *, files: int, rate: int) -> None:
        self._tree = tree
        self._files = files
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.count = 0
        self.began_ns = self.ended_ns = 0

    def for_seconds(self, seconds: float) -> None:
        """Change for so long, and return."""
        self._thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rng = random.Random()  # not the same content as in the last run
        self.began_ns = time.time_ns() - 20_000_000  # the kernel's clock of files is coarse
        began = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self.count < due:
                content = rng.randbytes(FILE_BYTES // 2).hex().encode()
                file_of(self._tree, self.count % self._files).write_bytes(content)
                self.count += 1
            self._stop.wait(_TICK_SECONDS)
        self.ended_ns = time.time_ns()
