"""Starts and stops Azurite, the emulator of Azure Blob Storage, on loopback.

`scripts/install_azurite.sh` puts it into `.tools`. Without it, what needs it is skipped with the
reason; where the environment says CI, its absence is a failure, as green must mean tested.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import pytest
from certificates import Authority
from ports import free_port

from streamd.storage.azure_access import AzureAccess

ACCOUNT = "devstoreaccount1"
# The emulator's own account key: public, the same everywhere, protects nothing.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_TOOLS = Path(__file__).parents[1] / ".tools"
_MAIN = _TOOLS / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
_START_SECONDS = 100.0
_STOP_SECONDS = 10.0
_shared: "list[Azurite]" = []
_shared_tls: "list[Azurite]" = []


class Azurite:
    """One emulator. With `location` it keeps its blobs over a restart, else in memory.

    `stop` and `start` keep the port: for a client that is an outage of the service.
    """

    def __init__(
        self,
        *,
        location: Path | None = None,
        arguments: tuple[str, ...] = (),
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.port = free_port()
        self._scheme = "http"
        if tls is not None:  # certificate and key; then it takes tokens of Entra ID, too
            self._scheme = "https"
            arguments += ("--cert", str(tls[0]), "--key", str(tls[1]), "--oauth", "basic")
        self._location = location
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def account_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/{ACCOUNT}"

    def access(self, container: str | None = None, *, prefix: str = "") -> AzureAccess:
        """Return access to a container that does not exist yet, and may be created."""
        name = container or f"c{uuid4().hex}"
        return AzureAccess(
            url=f"{self.account_url}/{name}/{prefix}".rstrip("/"),
            auth="shared-key",
            secret=KEY,
            create_container=True,
        )

    def start(self) -> None:
        """Start, and return when it answers."""
        place = (
            ["--inMemoryPersistence"]
            if self._location is None
            else ["--location", str(self._location)]
        )
        command = [
            str(shutil.which("node")), str(_MAIN), "--silent", "--disableTelemetry",
            "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(self.port),
            *place, *self._arguments,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Azurite did not start: {' '.join(command)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop this emulator's own process; nothing listens afterwards."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def missing_reason() -> str | None:
    """Return why Azurite cannot run here, or None."""
    if shutil.which("node") is None:
        return "node is not installed: run scripts/install_azurite.sh"
    if not _MAIN.exists():
        return "Azurite is not installed: run scripts/install_azurite.sh"
    return None


def require_azurite() -> None:
    """Skip the test without Azurite, or fail it under CI."""
    reason = missing_reason()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """One emulator in memory for the whole run; each test takes a container of its own.

    Import it where it is used: however many modules do, it is one process.
    """
    require_azurite()
    if not _shared:
        _shared.append(Azurite())
        _shared[0].start()
    yield _shared[0]
    _shared[0].stop()


@pytest.fixture(scope="session")
def azurite_tls(authority: Authority) -> Iterator[Azurite]:
    """One emulator over HTTPS, which takes unsigned tokens of Entra ID, too."""
    require_azurite()
    if not _shared_tls:
        _shared_tls.append(Azurite(tls=authority.files()))
        _shared_tls[0].start()
    yield _shared_tls[0]
    _shared_tls[0].stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
