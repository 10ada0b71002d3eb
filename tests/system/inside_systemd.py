"""What test_systemd.py has run inside the booted box: install, and lead a life under systemd.

    inside_systemd.py CHECKOUT COMMAND...

COMMAND becomes /usr/bin/streamd. Prints one JSON object, one entry per step; judges nothing. Written
for the plain system Python of the box.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

UNIT = "streamd.service"
CONFIG = Path("/etc/streamd/streamd.toml")
TREE = Path("/srv/data")
GOOD = """\
[vault]
url = "file:///var/lib/streamd/vault"
key_file = "/etc/streamd/vault.key"
[sources.data]
paths = ["/srv/data"]
rpo = "2s"
[metrics]
listen = "127.0.0.1:9464"
"""
BAD = GOOD.replace("rpo =", "rop =")
PROPERTIES = "ActiveState,SubState,Result,StatusText,NRestarts,MainPID,ExecMainStatus,User,Type"
COMMAND_SECONDS = 60
SETTLE_SECONDS = 30


def run(*command: str) -> dict[str, object]:
    """Run a command; say how it ended and how long it took."""
    begin = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )
    return {
        "status": done.returncode,
        "output": (done.stdout + done.stderr).strip(),
        "seconds": time.monotonic() - begin,
    }


def unit() -> dict[str, str]:
    """What systemd thinks of the service now."""
    text = str(run("systemctl", "show", UNIT, f"--property={PROPERTIES}")["output"])
    return dict(line.split("=", 1) for line in text.splitlines())


def settled(**wanted: str) -> dict[str, str]:
    """Wait until the service has these properties, or for a limited time; say what it has."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        now = unit()
        if all(now.get(key) == value for key, value in wanted.items()):
            return now
        time.sleep(0.1)
    return unit()


def page(path: str) -> int:
    """The status of a page of the daemon, 0 if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:9464{path}", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def journal() -> str:
    """The last lines of the service."""
    return str(run("journalctl", "-u", UNIT, "-n", "60", "--no-pager", "-o", "cat")["output"])


def install(checkout: Path, command: list[str]) -> None:
    """What a package would do, and a small protected tree."""
    program = Path("/usr/bin/streamd")
    program.write_text("#!/bin/sh\nexec " + " ".join(command) + ' "$@"\n')
    program.chmod(0o755)
    units = Path("/etc/systemd/system")
    units.joinpath(UNIT).write_text(checkout.joinpath("systemd", UNIT).read_text())
    users = checkout / "systemd" / "streamd.sysusers.conf"
    run("systemd-sysusers", str(users))
    CONFIG.parent.mkdir(mode=0o700)
    CONFIG.write_text(GOOD)
    CONFIG.chmod(0o600)
    TREE.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "none", str(TREE))  # the box's root is an overlay: no fanotify
    TREE.joinpath("private").write_text("only root may read this\n")
    TREE.joinpath("private").chmod(0o600)
    run("systemctl", "daemon-reload")


def life() -> dict[str, object]:
    """Everything that happens to a service, in order."""
    steps: dict[str, object] = {}
    steps["verify"] = run("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{UNIT}")
    steps["security"] = run("systemd-analyze", "security", "--no-pager", UNIT)
    steps["init"] = run("streamd", "init", "--kit", "/root/kit.txt")
    steps["start"] = run("systemctl", "start", UNIT)
    steps["started"] = unit()
    steps["healthz"] = page("/healthz")
    steps["protectedz"] = _protected()
    steps["reload"] = run("systemctl", "reload", UNIT)
    CONFIG.write_text(BAD)
    steps["bad_reload"] = run("systemctl", "reload", UNIT)
    steps["after_bad_reload"] = unit()
    steps["bad_reload_journal"] = journal()
    CONFIG.write_text(GOOD)
    steps["reload_again"] = run("systemctl", "reload", UNIT)
    steps["before_kill"] = unit()
    run("systemctl", "kill", "--signal=KILL", UNIT)
    settled(MainPID="0")
    write("while-dead", 20)  # Restart= waits for some seconds
    steps["after_kill"] = settled(ActiveState="active", SubState="running", NRestarts="1")
    steps["delivered_after_kill"] = settled_watch()
    steps["restart"] = restart_beside_a_writer()
    steps["stop"] = run("systemctl", "stop", UNIT)
    steps["stopped"] = unit()
    CONFIG.write_text(BAD)
    steps["bad_start"] = run("systemctl", "start", UNIT)
    time.sleep(1)
    steps["after_bad_start"] = unit()
    steps["journal"] = journal()
    return steps


def restart_beside_a_writer() -> dict[str, object]:
    """An orderly restart, while files are written all the time."""
    begin = journal_cursor()
    stop = threading.Event()
    written = 0

    def work() -> None:
        nonlocal written
        while not stop.is_set():
            TREE.joinpath(f"during-restart-{written}").write_text(str(written))
            written += 1
            time.sleep(0.02)

    worker = threading.Thread(target=work)
    worker.start()
    time.sleep(0.5)
    done = run("systemctl", "restart", UNIT)
    time.sleep(0.5)
    stop.set()
    worker.join()
    facts = settled_watch()
    return {
        "command": done,
        "written": written,
        "facts": facts,
        "journal": journal_since(begin),
    }


def write(prefix: str, count: int) -> None:
    """Change the tree."""
    for number in range(count):
        TREE.joinpath(f"{prefix}-{number}").write_text(str(number))


def settled_watch() -> dict[str, object]:
    """Wait until everything written so far is durable; say what was seen on the way."""
    now, end = time.time(), time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        if sample("streamd_protected_through_timestamp_seconds", 'destination="vault"') > now:
            break
        time.sleep(0.2)
    listed = run("streamd", "ls", "--json", "data:/srv/data")
    points = run("streamd", "points", "--json", "data")
    return {
        "page": page("/protectedz"),
        "events": sample("streamd_watch_events_total"),
        "rescans": sample("streamd_rescans_total"),
        "listed": listed["output"],
        "points": points["output"],
    }


def sample(name: str, label: str = "") -> float:
    """The sum of a metric over its labels; 0 while nobody answers."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith((f"{name}{{", f"{name} ")) and label in line
    )


def journal_cursor() -> str:
    """Where the journal ends now."""
    text = str(run("journalctl", "-n", "0", "--show-cursor", "--no-pager")["output"])
    return text.rpartition("cursor: ")[2].strip()


def journal_since(cursor: str) -> str:
    """What the service has said since then."""
    return str(
        run("journalctl", "-u", UNIT, "--no-pager", "-o", "cat", f"--after-cursor={cursor}")[
            "output"
        ]
    )


def _protected() -> int:
    end = time.monotonic() + SETTLE_SECONDS
    while (status := page("/protectedz")) != 200 and time.monotonic() < end:
        time.sleep(0.2)
    return status


if __name__ == "__main__":
    install(Path(sys.argv[1]), sys.argv[2:])
    json.dump(life(), sys.stdout)
