"""Make a golden vault with the real commands: `python tests/golden/make_vault.py NAME`, as root.

Done once for each version of the format, and kept for ever: two weeks in the life of a small host,
with several sources, renames, deletions, hard links, sparse files, attributes, names that are no
UTF-8, a file whose list of chunks needs pages, many epochs, kept points, a retention run, and
records behind the last checkpoint. `expected.json` says which tree each source
has at which instant. The script and the specification of that release are left out, for their size.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden.trees import as_json  # noqa: E402 - the path comes first
from system.daemon_process import Daemon, instant  # noqa: E402
from system.moved_clock import MovedClock  # noqa: E402
from system.tree import Entry, listing  # noqa: E402

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
START_US = 1_793_523_600_000_000  # 2026-11-01T09:00:00Z
BASE = Path("/tmp/streamd-golden")
POLICY: dict[str, object] = {"continuous": "48h", "daily": 2, "weekly": 3}


def write(path: Path, content: bytes, *, mode: int = 0o644, at: int = 1_700_000_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(at * 10**9 + 123_456_789, at * 10**9 + 123_456_789))


def first_day(web: Path, papers: Path) -> None:
    for number in range(12):
        write(web / "pages" / f"page-{number}.html", b"<p>%d " % number * 30)
    write(web / "bin" / "tool", b"#!/bin/sh\n", mode=0o4755)
    os.chown(web / "bin" / "tool", 1000, 100)
    (web / "empty").mkdir(mode=0o2770)
    write(web / "one", b"has two names")
    os.link(web / "one", web / "bin" / "two")
    os.symlink("../nowhere", web / "link")
    os.mkfifo(web / "fifo", 0o640)
    write(Path(os.fsdecode(bytes(web) + b"/n\xf6 utf-8 \xff\n")), b"a name of bytes")
    os.setxattr(web / "one", "user.note", b"\x00kept")
    with (web / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"an island" * 1000)
    with (web / "large").open("wb") as file:
        for number in range(80):  # 80 MiB that compress to nothing, cut at the largest size
            file.write(bytes((number,)) * (1 << 20))
    for folder in ("a", "b"):
        write(papers / folder / "letter.txt", folder.encode() * 700)


def change(day: int, web: Path, papers: Path) -> None:
    write(web / "log.txt", b"".join(b"day %d\n" % n for n in range(day + 1)))
    write(web / "pages" / f"page-{day % 12}.html", b"<p>changed on day %d" % day)
    if day == 2:
        (web / "pages").rename(web / "sites")
        (web / "pages").mkdir()
    if day == 4:
        (web / "large").unlink()
        (web / "bin" / "two").unlink()
        write(papers / "a" / "new \u00e4.txt", b"another")
    if day == 6:
        (web / "link").unlink()
        os.symlink("one", web / "link")
        os.link(papers / "a" / "letter.txt", papers / "b" / "same")
    if day == 9:
        shutil.rmtree(web / "sites")
        (papers / "b" / "letter.txt").rename(papers / "a" / "moved")


def main(name: str) -> None:
    """Make `tests/golden/vaults/NAME`."""
    shutil.rmtree(BASE, ignore_errors=True)
    web, papers = BASE / "web", BASE / "papers"
    web.mkdir(parents=True)
    tables = (
        f'[sources.papers]\npaths = ["{papers}/a", "{papers}/b"]\npolicy = "test"\n'
        'exclude = ["*.tmp"]\n'
    )
    daemon = Daemon(BASE / "host", web, policy=POLICY, source="web", tables=tables)
    config = ("-c", str(daemon.config))
    captures: list[tuple[int, dict[str, dict[bytes, Entry]]]] = []
    known: set[str] = set()
    with daemon, MovedClock() as clock:
        now_us = START_US
        clock.run(now_us, "init", *config, "--kit", str(BASE / "kit.txt"), "--code-in-kit")
        first_day(web, papers)
        for day in range(15):
            now_us = START_US + day * DAY + day % 5 * HOUR
            change(day, web, papers)
            done = clock.run(now_us, "capture", *config)
            trees = {"web": listing(web), "papers": listing(papers)}
            captures.append((done.ended_us, trees))
            for path in daemon.vault.rglob("*"):  # the age that it would have
                if path.is_file() and str(path) not in known:
                    os.utime(path, ns=(now_us * 1000, now_us * 1000))
                    known.add(str(path))
            if day == 12:
                clock.run(now_us + 60 * SECOND, "retention", "run", *config, "--accept-loss")
        write(web / "last", b"behind the last checkpoint")
        done = clock.run(now_us + 2 * HOUR, "capture", *config)
        captures.append((done.ended_us, {"web": listing(web), "papers": listing(papers)}))
        expected = [
            each
            for source in ("web", "papers")
            for each in found(clock, config, source, captures, done.ended_us + DAY)
        ]
    place = Path(__file__).parent / "vaults" / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(daemon.vault, place / "vault")
    for document in (*(place / "vault" / "v").glob("*.py"), *(place / "vault" / "v").glob("*.md")):
        document.unlink()
    shutil.rmtree(place / "vault" / "tmp", ignore_errors=True)
    shutil.copy(daemon.workdir / "vault.key", place / "host.key")
    shutil.copy(BASE / "kit.txt", place / "kit.txt")
    text = json.dumps(expected, indent=0, sort_keys=True, ensure_ascii=True)
    (place / "expected.json").write_text(text + "\n", "utf-8")
    shutil.rmtree(BASE)


def found(
    clock: MovedClock,
    config: tuple[str, str],
    source: str,
    captures: list[tuple[int, dict[str, dict[bytes, Entry]]]],
    now_us: int,
) -> list[dict[str, Any]]:
    """Return what the vault has of a source, checked by the trees: the last instant of each."""
    rows = [{"source": source, "at_us": START_US - DAY, "of": None, "tree": None}]
    for number, (at_us, _) in enumerate(captures):
        target = BASE / f"out-{source}-{number}"
        clock.run(now_us, "restore", *config, source, "--to", str(target), "--at", instant(at_us))
        tree = below(listing(target), source)
        earlier = [n for n in range(number + 1) if below(captures[n][1][source], "") == tree]
        assert earlier, f"{source} at capture {number} is like none of the trees"
        if rows[-1]["of"] == earlier[-1]:
            rows.pop()  # the later instant of the same kept point says more
        rows.append({"source": source, "at_us": at_us, "of": earlier[-1], "tree": as_json(tree)})
        shutil.rmtree(target)
    return rows


def below(tree: dict[bytes, Entry], source: str) -> dict[bytes, Entry]:
    """Return the part of a tree that a source has; several paths are restored with their paths."""
    prefix = bytes(BASE)[1:] + b"/papers/" if source == "papers" else b""
    if source == "web" or (not source and b"a" not in tree):
        return tree
    return {
        path[len(prefix) :]: Entry(**{**fields_of(entry), "linked": tuple(
            name[len(prefix) :] for name in entry.linked)})
        for path, entry in tree.items()
        if path.startswith(prefix) and path != b"."
    }  # fmt: skip


def fields_of(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


if __name__ == "__main__":
    main(sys.argv[1])
