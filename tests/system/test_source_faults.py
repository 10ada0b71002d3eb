"""What a source does to whoever captures it: T-F1, T-F2, T-F6, T-F7, T-F9 of docs/faults.md.

STREAMD_RENAMES (default 2,000; 1,000,000 for acceptance) is the size of the rename storm.
"""

import fcntl
import itertools
import os
import signal
import struct
import subprocess
import threading
import time
import unicodedata
from pathlib import Path

import pytest
from system.daemon_process import Daemon, environment, now_us, streamd
from system.test_fidelity import disk  # noqa: F401 - a fixture
from system.tree import difference, listing

RENAMES = int(os.environ.get("STREAMD_RENAMES", "2000"))
QUEUE_FILE = Path("/proc/sys/fs/fanotify/max_queued_events")
QUEUE = 512
DEFAULT_QUEUE = 16_384  # of fanotify(7)
SOURCE = """
[sources.second]
paths = ["{path}"]
policy = "test"
rpo = "2s"
"""
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
IMMUTABLE, APPEND_ONLY = 0x10, 0x20
DELAYS = "streamd_change_protection_delay_seconds_sum"
LINE = b"line %08d of a log that others go on writing\n"


@pytest.fixture
def short_queue():
    """A queue so short that a stopped daemon loses events; groups made from now on have it."""
    before = max(int(QUEUE_FILE.read_text()), DEFAULT_QUEUE)  # a killed run has left its own
    QUEUE_FILE.write_text(str(QUEUE))
    yield
    QUEUE_FILE.write_text(str(before))


def total(daemon: Daemon, name: str) -> float:
    return sum(value for _, value in daemon.metrics(name))


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("short_queue")
@pytest.mark.timeout(300 + RENAMES // 200)
def test_t_f1_a_rename_storm_is_a_gap_a_lag_and_a_rescan(tmp_path) -> None:
    tree = tmp_path / "tree"
    for number in range(20):
        (tree / str(number)).mkdir(parents=True)
        for name in range(10):
            (tree / str(number) / str(name)).write_text(f"{number} {name}")
    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        assert daemon.process is not None
        late = total(daemon, DELAYS)
        daemon.process.send_signal(signal.SIGSTOP)
        for number in range(RENAMES):
            at = tree / str(number % 20)
            os.rename(at / "3", at / f"3-{number}")
            os.rename(at / f"3-{number}", at / "3")
        os.rename(tree / "7", tree / "moved")
        (tree / "moved/3").write_text("changed in the storm")
        time.sleep(2 * daemon.rpo_seconds)
        daemon.process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 100
        while total(daemon, "streamd_watch_overflows_total") == 0:
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.1)
        daemon.wait_protected(seconds=240)
        assert total(daemon, DELAYS) > late + daemon.rpo_seconds, "that it took too long shows"
        reasons = {labels.get("reason") for labels, _ in daemon.metrics("streamd_rescans_total")}
        assert "overflow" in reasons
        gaps = daemon.facts("points")["sources"][0]["gaps"]
        assert any(gap["reason"] == "overflow" for gap in gaps), gaps
        daemon.stop()
        daemon.restore(tmp_path / "back")
    assert difference(listing(tree), listing(tmp_path / "back")) == []


@pytest.mark.timeout(300)
def test_t_f2_files_that_change_while_they_are_read(tmp_path) -> None:
    """An appended one is restored as a prefix, a replaced one whole, a truncated one in the end."""
    tree = tmp_path / "tree"
    tree.mkdir()
    whole = [bytes([letter]) * 300_000 for letter in b"abcdefgh"]
    (tree / "replaced").write_bytes(whole[0])
    (tree / "log").write_bytes(b"".join(LINE % number for number in range(40_000)))
    stop = threading.Event()

    def append() -> None:
        with (tree / "log").open("ab", buffering=0) as log:
            for number in itertools.count(40_000):
                log.write(LINE % number)
                if stop.wait(0.001):
                    return

    def replace() -> None:
        for number in itertools.count():
            (tree / ".new").write_bytes(whole[number % len(whole)])
            (tree / ".new").rename(tree / "replaced")
            (tree / "cut").write_bytes(whole[number % len(whole)])
            os.truncate(tree / "cut", number % 1000)
            if stop.wait(0.005):
                return

    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        threads = [threading.Thread(target=each) for each in (append, replace)]
        for thread in threads:
            thread.start()
        instants: list[int] = []
        read, until = total(daemon, "streamd_source_bytes_total"), time.monotonic() + 90
        goal = read + 2 * (tree / "log").stat().st_size  # until it was read a few times more
        while time.monotonic() < until and (read < goal or len(instants) < 3):
            time.sleep(1.0)
            instants = [*instants, now_us()][-3:]
            read = total(daemon, "streamd_source_bytes_total")
        stop.set()
        for thread in threads:
            thread.join()
        daemon.wait_protected()
        sizes = []
        for at in instants:
            daemon.restore(tmp_path / str(at), at=at)
            log = (tmp_path / str(at) / "log").read_bytes()
            lines = len(log) // len(LINE % 0) + 1
            assert log == b"".join(LINE % number for number in range(lines))[: len(log)]
            assert (tmp_path / str(at) / "replaced").read_bytes() in whole
            sizes.append(len(log))
        assert sizes == sorted(sizes)
        assert sizes[-1] > 40_000 * len(LINE % 0), "it was captured while it was written"
        until = time.monotonic() + 100  # what was stored fuzzy is read again
        while total(daemon, "streamd_fuzzy_files") and time.monotonic() < until:
            time.sleep(0.2)
        daemon.wait_protected()
        daemon.stop()
        daemon.restore(tmp_path / "back")
    assert difference(listing(tree), listing(tmp_path / "back")) == []


NAMES = [
    b"\xff\xfe not UTF-8 \x80",
    b"new\nline",
    b"\x01\x1b[31mred\x7f",
    b"x" * 255,
    "ü".encode() * 127,
    b"-rf",
    b"--",
    "\u202egnp.exe".encode(),  # right to left
    unicodedata.normalize("NFC", "é").encode(),
    unicodedata.normalize("NFD", "é").encode(),
    b"case",
    b"Case",
    b" ",
    b"*",
    b"back\\slash",
    b"quote'\"`$(id)",
    b"...",
]


@pytest.mark.timeout(300)
def test_t_f6_names_are_bytes_from_end_to_end_and_shown_escaped(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    top = os.fsencode(tree)
    for name in NAMES:
        os.mkdir(top + b"/d" + name[:254])
        for directory in (top, top + b"/d" + name[:254]):
            with open(directory + b"/" + name, "wb") as file:
                file.write(name)
    with Daemon(tmp_path / "streamd", tree) as daemon:
        daemon.init()
        daemon.command("capture")
        daemon.restore(tmp_path / "back")
        shown = daemon.command("ls", "tree")
    assert {os.listdir(top)[i] for i in range(len(os.listdir(top)))} >= set(NAMES)
    assert difference(listing(tree), listing(tmp_path / "back")) == []
    for letter in shown.replace("\n", ""):
        assert unicodedata.category(letter) not in {"Cc", "Cf", "Cs"}, ascii(shown)


def set_flags(path: Path, flags: int) -> None:
    with path.open("rb") as file:
        (before,) = struct.unpack("=L", fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(4)))
        kept = before & ~(IMMUTABLE | APPEND_ONLY)
        fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("=L", kept | flags))


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
def test_t_f7_links_across_roots_large_attributes_and_protected_files(tmp_path, disk) -> None:
    """test_fidelity.py has ACLs, capabilities, attributes and links on every file system."""
    _, point = disk
    one, two = point / "one", point / "two"
    for root in (one, two):
        root.mkdir()
    (one / "first").write_text("three names")
    os.link(one / "first", one / "second")
    os.link(one / "first", two / "elsewhere")
    (one / "large").write_text("x")
    os.setxattr(one / "large", "user.large", os.urandom(65_000))
    for name, flags in (("immutable", IMMUTABLE), ("log", APPEND_ONLY)):
        (one / name).write_text(name)
        set_flags(one / name, flags)
    try:
        with Daemon(tmp_path / "streamd", one, source_options={"paths": [str(one), str(two)]}) as d:
            d.init()
            d.command("capture")
            assert d.facts("problems")["problems"] == []
            d.restore(point / "back")
        back = point / "back"
        restored = [next(back.rglob(name)) for name in ("first", "second", "elsewhere")]
        assert len({path.stat().st_ino for path in restored}) == 1
        assert restored[0].stat().st_nlink == 3
        assert os.getxattr(next(back.rglob("large")), "user.large") == os.getxattr(
            one / "large", "user.large"
        )
        for name in ("immutable", "log"):  # docs/durability.md: flags are not recorded
            found = next(back.rglob(name))
            assert found.read_text() == name
            found.write_text("can be written: the flag is not there")
    finally:
        for name in ("immutable", "log"):
            set_flags(one / name, 0)


@pytest.mark.root
@pytest.mark.timeout(300)
def test_t_f9_what_may_not_be_read_is_told_and_the_rest_is_captured(tmp_path) -> None:
    """Root without the right to read everything: what belongs to others is closed to it."""
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "closed/inside").write_text("x")
    (tree / "secret").write_text("x")
    (tree / "open").write_text("everybody may")
    for path, mode in ((tree / "closed", 0o700), (tree / "secret", 0o600)):
        os.chown(path, 12345, 12345)
        path.chmod(mode)
    limited = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    with Daemon(tmp_path / "streamd", tree) as daemon:

        def run(*words: str, code: int = 0) -> str:
            done = subprocess.run(
                [*limited, *streamd(), *words, "-c", str(daemon.config)],
                capture_output=True,
                text=True,
                check=False,
                timeout=180,
                env=environment(),
            )
            assert done.returncode == code, (words, done.stdout, done.stderr)
            return done.stdout

        run("init", "--kit", str(tmp_path / "streamd/kit"))
        run("capture", code=3)
        told = run("problems", code=3)
        assert f"{tree}/secret" in told
        assert f"{tree}/closed" in told
        assert "unreadable" in told
        assert run("cat", "tree:open") == "everybody may"
        (tree / "secret").chmod(0o644)
        (tree / "closed").chmod(0o755)
        run("capture")
        assert run("cat", "tree:closed/inside") == "x"
