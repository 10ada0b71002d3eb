"""Tokens are renewed at half of their life, and the old one serves while that fails."""

import pytest
from azure.core.credentials import AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

from streamd.errors import (
    ConfigInvalid,
    CredentialExpired,
    CredentialRejected,
    IdentityUnavailable,
)
from streamd.storage.azure_tokens import EarlyToken

pytestmark = pytest.mark.asyncio
HOUR = 3600.0
SCOPE = "https://storage.azure.com/.default"


class Office:
    """Gives tokens of an hour, or raises `error`; is the clock, too."""

    def __init__(self) -> None:
        self.seconds = 1e9
        self.given = 0
        self.asked = 0
        self.closed = 0
        self.error: Exception | None = None
        self.heard: list[int] = []
        self.token = EarlyToken(
            lambda: self, place="service-principal", clock=self, on_token=self.heard.append
        )

    def now_us(self) -> int:
        return int(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds

    async def get_token_info(self, *_: str, options=None) -> AccessTokenInfo:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.given += 1
        return AccessTokenInfo(str(self.given), int(self.seconds + HOUR))

    async def close(self) -> None:
        self.closed += 1

    async def now(self, **options: object) -> str:
        return (await self.token.get_token_info(SCOPE, options=options or None)).token


async def test_half_of_a_life_is_used() -> None:
    office = Office()
    assert [await office.now() for _ in range(3)] == ["1"] * 3
    office.seconds += HOUR / 2 - 1
    assert await office.now() == "1"
    office.seconds += 2
    assert await office.now() == "2"
    assert office.closed == office.asked == 2
    assert office.heard[-1] == int(office.seconds + HOUR) * 1_000_000
    assert (await office.token.get_token(SCOPE)).token == "2"


async def test_the_old_token_serves_while_no_new_one_is_to_be_had() -> None:
    office = Office()
    await office.now()
    office.seconds += HOUR / 2 + 1
    office.error = ServiceRequestError("down")
    for _ in range(100):
        office.seconds += 10
        assert await office.now() == "1"
    assert office.asked <= 1 + 100 * 10 / 30 + 1, "asked too often"
    office.seconds += HOUR
    with pytest.raises(IdentityUnavailable):
        await office.now()
    office.error = None
    assert await office.now() == "2"


async def test_a_challenge_gets_a_new_token() -> None:
    office = Office()
    await office.now()
    assert await office.now(claims="more") == "2"
    assert await office.now() == "2"


async def test_another_service_gets_a_token_of_its_own() -> None:
    office = Office()
    await office.now()
    other = await office.token.get_token_info("https://management.azure.com/.default")
    assert other.token == "2"
    assert await office.now() == "1"


class Response:
    def __init__(self, status: int) -> None:
        self.status_code = status
        self.reason = ""
        self.headers: dict[str, str] = {}
        self.content_type = ""

    def text(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClientAuthenticationError("AADSTS7000215: Invalid client secret"), CredentialRejected),
        (ClientAuthenticationError("AADSTS7000222: secret keys are expired"), CredentialExpired),
        (ClientAuthenticationError("x", response=Response(503)), IdentityUnavailable),
        (ClientAuthenticationError("x", response=Response(429)), IdentityUnavailable),
        (ServiceRequestError("no route"), IdentityUnavailable),
        (TimeoutError(), IdentityUnavailable),
        (FileNotFoundError(2, "No such file", "/token"), CredentialRejected),
    ],
)
async def test_why_there_is_no_token_is_told_apart(error: Exception, expected: type) -> None:
    office = Office()
    office.error = error
    with pytest.raises(expected) as caught:
        await office.now()
    assert type(caught.value) is expected
    assert caught.value.advice()


async def test_what_cannot_be_made_is_a_matter_of_configuration() -> None:
    def make() -> None:
        raise ValueError("client_id is missing")

    token = EarlyToken(make, place="workload-identity", clock=Office())
    with pytest.raises(ConfigInvalid, match="client_id is missing"):
        await token.get_token_info(SCOPE)
