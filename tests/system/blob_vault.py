"""A daemon whose vault is a container in our own Blob server, over TLS."""

from pathlib import Path

from blobserver.records import EMULATOR_KEY
from blobserver.server import BlobServer
from certificates import Authority

CONTAINER = "vault"


def blob_vault(server: BlobServer, folder: Path, authority: Authority) -> dict[str, object]:
    """Return the arguments of a Daemon; the key goes to `folder`, where it may be exchanged."""
    write_key(folder, EMULATOR_KEY)
    return {
        "vault_url": f"{server.account_url}/{CONTAINER}/host",
        "vault_options": {
            "auth": "shared-key",
            "shared_key_file": str(folder / "account-key"),
            "create_container": True,
            "ca_file": authority.ca_file,
        },
    }


def write_key(folder: Path, key: str) -> None:
    """Put a new key in place, as an operator should: beside, then renamed over."""
    fresh = folder / "account-key.new"
    fresh.write_text(key)
    fresh.chmod(0o600)
    fresh.rename(folder / "account-key")
