"""A PostgreSQL that runs is recognised by its data directory, with a real server."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ports import free_port
from system.daemon_process import Daemon

WAIT_SECONDS = 100


def programs() -> Path | None:
    """Return where the server's programs are: Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    beside = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(beside).parent if beside else None


class Server:
    """A server of its own in a directory, run by a user that is not root: it insists on that."""

    def __init__(self, directory: Path) -> None:
        binaries = programs()
        assert binaries is not None, "PostgreSQL is needed: apt-get install postgresql"
        self._binaries, self.data = binaries, directory
        directory.mkdir(mode=0o700)
        os.chown(directory, 65534, 65534)
        self._run("initdb", "-U", "admin", "-A", "trust", "-N")

    def _run(self, program: str, *arguments: str) -> None:
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run(
            [*user, self._binaries / program, "-D", self.data, *arguments],
            check=False,
            cwd="/",
            env={**os.environ, "HOME": "/"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout.decode()

    def start(self) -> None:
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "-w", "-l", str(self.data / "server.log"), "-o", options, "start")
        socket.create_connection(("127.0.0.1", port), timeout=10).close()

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")


def reasons(daemon: Daemon) -> dict[str, str]:
    found = daemon.facts("problems", codes=(0, 3))["problems"]
    return {problem["path"]: problem["reason"] for problem in found}


@pytest.mark.root
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    programs() is None and not os.environ.get("CI"), reason="there is no PostgreSQL server here"
)
def test_a_running_server_is_reported_and_one_that_was_stopped_is_not() -> None:
    home = Path("/tmp") / f"streamd-postgres-{os.getpid()}"  # pytest's own folders are root's
    home.mkdir(mode=0o755)
    (home / "tree").mkdir(mode=0o755)
    try:
        server = Server(home / "tree" / "main")
        server.start()
        try:
            with Daemon(home / "streamd", home / "tree") as daemon:
                daemon.init()
                daemon.start()
                daemon.wait_protected(seconds=120)
                wait_for(daemon, {str(server.data): "postgres-running"})
                assert "pg_dump" in daemon.command("problems", codes=(0, 3))
                assert daemon.command("cat", "tree:main/PG_VERSION").strip().isdigit()
                server.stop()
                (server.data / "postmaster.pid").unlink(missing_ok=True)
                wait_for(daemon, {})
                daemon.stop()
        finally:
            if (server.data / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(home)


def wait_for(daemon: Daemon, expected: dict[str, str]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while (found := reasons(daemon)) != expected:
        assert time.monotonic() < until, f"{found}\n{daemon.log_tail()}"
        time.sleep(0.5)
