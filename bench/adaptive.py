"""The row of `compression = "auto"`: beside both fixed choices, where each of them is wrong.

The same text is captured through a line of 50 Mbit/s into Azurite, where a byte less is time, and on
one processor that six other programs want too, into a directory, where processor time is what is
short. No fixed choice is good at both; automatic has to be about as good as the better one each time,
and better than either in sum.
"""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.azurite_row import StreamdRemote
from bench.datasets import Words
from bench.figures import Figure, Place
from bench.measure import Cost, Failed, run, warm
from bench.peers import CHECKOUT, Streamd

SETTINGS = ("lz4", "zstd:6", "auto")
LINE_BYTES_PER_SECOND = 50e6 / 8
FILE_BYTES = 2 << 20
FILES, FILES_QUICK = 160, 60
OTHERS = 6
ROUNDS_MAX = 1
NEAR = 1.15  # to the better fixed choice, which is known only afterwards


def measure(place: Place) -> Iterator[Figure]:
    """Let the three settings take turns in both places."""
    from azurite import missing_reason

    if reason := missing_reason():
        raise Failed(reason)
    tree = _text(place)
    warm(tree)
    seconds: dict[tuple[str, str], float] = {}
    stored: dict[tuple[str, str], float] = {}
    for _ in range(min(place.rounds, ROUNDS_MAX)):
        for setting in SETTINGS:
            for where, capture in (("50 Mbit/s", _slow_line), ("busy host", _busy_host)):
                cost, size = capture(place.folder / "streamd", tree, setting)
                key = where, setting
                seconds[key] = min(cost.wall_seconds, seconds.get(key, cost.wall_seconds))
                stored[key] = size / 1e6
    for key, value in seconds.items():
        yield Figure("compression", f"{key[0]}, {key[1]}: wall", value, "s")
        yield Figure("compression", f"{key[0]}, {key[1]}: stored", stored[key], "MB")
    sums = {each: sum(v for key, v in seconds.items() if key[1] == each) for each in SETTINGS}
    for where in ("50 Mbit/s", "busy host"):
        best = min(seconds[where, each] for each in SETTINGS[:2])
        share = seconds[where, "auto"] / best
        yield Figure("compression", f"{where}: auto to the better fixed choice", share, "", NEAR)
    for fixed in SETTINGS[:2]:
        share = sums["auto"] / sums[fixed]
        yield Figure("compression", f"both together: auto to {fixed}", share, "", 1.0)


def _text(place: Place) -> Path:
    tree = place.folder / "text"
    tree.mkdir()
    words = Words(random.Random(5))
    for number in range(FILES_QUICK if place.quick else FILES):
        (tree / f"{number:04}").write_bytes(words.text(FILE_BYTES))
    return tree


def _slow_line(folder: Path, tree: Path, setting: str) -> tuple[Cost, int]:
    from azurite import ACCOUNT, KEY, Azurite

    with Azurite() as server, _line(server.port) as port:
        tool = _Remote(folder)
        tool.account_url, tool.key = f"http://127.0.0.1:{port}/{ACCOUNT}", KEY
        tool.setting = setting
        tool.init(tree)
        return tool.backup(tree), tool.size_bytes()


def _busy_host(folder: Path, tree: Path, setting: str) -> tuple[Cost, int]:
    tool = Streamd(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tool.configure(tree, pipeline=f'compression = "{setting}"')
    pin = ["taskset", "-c", "0"]
    others = [
        subprocess.Popen([*pin, sys.executable, "-c", "while True: pass"]) for _ in range(OTHERS)
    ]
    try:
        command = [*pin, sys.executable, "-m", "streamd", "capture", "-c", tool.config]
        return run(command, env=tool.env), tool.size_bytes()
    finally:
        for other in others:
            other.kill()
            other.wait()


class _Remote(StreamdRemote):
    setting = "auto"

    def configure(self, tree: Path, **parts: str) -> None:
        super().configure(tree, **parts, pipeline=f'compression = "{self.setting}"')

    def size_bytes(self) -> int:
        return sum(
            path.stat().st_size for path in (self.folder / "local").rglob("*") if path.is_file()
        )


@contextmanager
def _line(server_port: int) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.slow_line", str(server_port), str(LINE_BYTES_PER_SECOND)],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.communicate("")
