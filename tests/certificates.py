"""A certificate authority of the tests' own, and servers that it vouches for."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme


class Authority:
    """Issues certificates for loopback; `ca_file` is what a client must trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca_file)

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """Return what a server needs to be `names`, by default 127.0.0.1."""
        expiry = datetime.now(UTC) - timedelta(days=1) if expired else None
        issued = self._authority.issue_cert(
            *(names or ("127.0.0.1", "localhost")), not_after=expiry
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(context)
        return context

    def files(self, *, is_rsa: bool = False) -> tuple[Path, Path]:
        """Return the files of a certificate for 127.0.0.1, and of its key."""
        kind = trustme.KeyType.RSA if is_rsa else trustme.KeyType.ECDSA
        issued = self._authority.issue_cert("127.0.0.1", "localhost", key_type=kind)
        certificate, key = self._folder / "server.pem", self._folder / "server.key"
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(str(certificate), append=number > 0)
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key


_shared: list[Authority] = []


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """One authority for the whole run. Import it where it is used."""
    with TemporaryDirectory(prefix="authority-") as folder:
        if not _shared or not Path(_shared[0].ca_file).exists():
            _shared[:] = [Authority(Path(folder))]
        yield _shared[0]
