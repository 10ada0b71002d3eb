"""A daemon whose vault is a container in Azurite."""

from pathlib import Path
from uuid import uuid4

from azurite import KEY, Azurite


def azurite_vault(service: Azurite, folder: Path) -> dict[str, object]:
    """Return the arguments of a Daemon with a container of its own; the key goes to `folder`."""
    secret = folder / "account-key"
    secret.write_text(KEY)
    secret.chmod(0o600)
    return {
        "vault_url": f"{service.account_url}/c{uuid4().hex}/host",
        "vault_options": {
            "auth": "shared-key",
            "shared_key_file": str(secret),
            "create_container": True,
        },
    }
