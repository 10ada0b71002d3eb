"""The stores that the daemon puts in front of a container, around our Blob server."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Self

from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from blobserver.records import EMULATOR_KEY
from blobserver.server import BlobServer

from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import StreamdError
from streamd.policy.backoff import Backoff
from streamd.policy.circuit import Circuit
from streamd.storage.azure import AzureBlobStore
from streamd.storage.azure_access import AzureAccess
from streamd.storage.governed import GovernedBlobStore
from streamd.storage.governor import Governor
from streamd.storage.retrying import RetryingBlobStore

ACCOUNT = "devstoreaccount1"


@dataclass
class Told:
    """What the observers heard."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    states: list[tuple[str, str | None]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    waited: float = 0.0

    def requested(self, operation: str, code: str, seconds: float) -> None:
        self.codes[operation, code] += 1

    def token_renewed(self, expires_us: int) -> None:
        self.tokens.append(expires_us)

    def circuit_changed(self, circuit: Circuit, error: StreamdError | None) -> None:
        self.states.append((circuit.state, circuit.cause))
        if circuit.state == "open" and error is not None:
            self.errors.append(error.code)

    def window_changed(self, size: int) -> None:
        pass

    def slowed_down(self, seconds: float) -> None:
        self.waited += seconds


class RemoteStack:
    """`store` is what the daemon has; `plain` is the adapter beneath."""

    def __init__(self, access: AzureAccess, *, give_up_after_seconds: float | None = None) -> None:
        clock, entropy = SystemClock(), SystemEntropy()
        self.access = access
        self.told = Told()
        self.plain = AzureBlobStore(access, observer=self.told, clock=clock)
        self.governor = Governor(clock, entropy, self.told)
        self.governed = GovernedBlobStore(
            self.plain, self.governor, lambda name: name.startswith("p/")
        )
        self.store = RetryingBlobStore(
            self.governed,
            Backoff(base_seconds=0.05),
            clock,
            entropy,
            give_up_after_seconds=give_up_after_seconds,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.aclose()


def shared_key(server: BlobServer, **changes: Any) -> AzureAccess:
    """Return access by the account's key."""
    access = AzureAccess(
        url=f"{server.account_url}/cont/pre",
        auth="shared-key",
        secret=EMULATOR_KEY,
        create_container=True,
    )
    return replace(access, **changes)


def sas(server: BlobServer, permissions: str = "rcl", **options: Any) -> str:
    """Return a SAS of the container."""
    return generate_container_sas(
        ACCOUNT,
        "cont",
        account_key=EMULATOR_KEY,
        permission=ContainerSasPermissions.from_string(permissions),
        **options,
    )


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
