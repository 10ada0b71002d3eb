"""Addresses, secrets and the meaning of the service's answers, without a service."""

import pytest

from streamd.errors import (
    BlobNotFound,
    ConfigInvalid,
    ContainerMissing,
    StorageRefused,
    StorageThrottled,
    VaultDamaged,
    VaultUnreachable,
)
from streamd.storage.azure_access import AzureAccess, parse_url, sas_expiry_us
from streamd.storage.azure_errors import (
    Answer,
    Asked,
    meaning,
    retry_after_seconds,
    without_secrets,
)

ASKED = Asked("get", "p/a", "cont", "acc.blob.core.windows.net")


@pytest.mark.parametrize(
    ("url", "account_url", "account", "container", "prefix"),
    [
        (
            "https://acc.blob.core.windows.net/cont",
            "https://acc.blob.core.windows.net",
            "acc",
            "cont",
            "",
        ),
        (
            "https://acc.blob.core.windows.net/cont/a/b/",
            "https://acc.blob.core.windows.net",
            "acc",
            "cont",
            "a/b/",
        ),
        ("http://127.0.0.1:10000/acc/cont/p", "http://127.0.0.1:10000/acc", "acc", "cont", "p/"),
        ("http://localhost:10000/acc/cont", "http://localhost:10000/acc", "acc", "cont", ""),
        ("http://[::1]:10000/acc/cont", "http://[::1]:10000/acc", "acc", "cont", ""),
    ],
)
def test_a_url_names_account_container_and_prefix(
    url: str, account_url: str, account: str, container: str, prefix: str
) -> None:
    address = parse_url(url)
    assert address[:4] == (account_url, account, container, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://acc.blob.core.windows.net",
        "http://127.0.0.1/acc",
        "file:///srv/vault",
        "https://a.b/c?sig=x",
    ],
)
def test_a_url_without_a_container_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_url(url)


def test_a_secret_never_shows() -> None:
    access = AzureAccess(
        url="https://a.b/c", auth="sas", secret="sig=TOPSECRET", proxy="http://u:TOPSECRET@p"
    )
    assert "TOPSECRET" not in f"{access!r} {access}"
    assert "TOPSECRET" not in without_secrets("GET https://a/b?se=1&sig=TOPSECRET&sp=r failed")
    assert "TOPSECRET" not in without_secrets("first line\nsig: TOPSECRET")


def test_a_sas_token_says_when_it_expires() -> None:
    assert sas_expiry_us("?sv=2024&se=2026-01-02T03%3A04%3A05Z&sig=x") == 1_767_323_045_000_000
    assert sas_expiry_us("se=2026-01-02") == 1_767_312_000_000_000
    assert sas_expiry_us("sv=2024&si=policy") is None
    assert sas_expiry_us("se=soon") is None


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "BlobNotFound", BlobNotFound),
        (404, "ContainerNotFound", ContainerMissing),
        (409, "ContainerBeingDeleted", ContainerMissing),
        (404, None, VaultUnreachable),  # a proxy's: nothing is said about our object
        (401, "NoAuthenticationInformation", StorageRefused),
        (403, "AuthorizationPermissionMismatch", StorageRefused),
        (403, None, StorageRefused),
        (407, None, StorageRefused),
        (416, "InvalidRange", VaultDamaged),
        (429, None, StorageThrottled),
        (503, "ServerBusy", StorageThrottled),
        (503, None, StorageThrottled),
        (500, "OperationTimedOut", VaultUnreachable),
        (500, "InternalError", VaultUnreachable),
        (502, None, VaultUnreachable),
        (408, "RequestTimeout", VaultUnreachable),
        (400, "InvalidHeaderValue", StorageRefused),
        (400, None, VaultUnreachable),
        (200, None, VaultUnreachable),  # a captive portal is no success
        (None, None, VaultUnreachable),
    ],
)
def test_each_answer_has_one_meaning(
    status: int | None, code: str | None, expected: type[Exception]
) -> None:
    error = meaning(Answer(status=status, code=code), ASKED)
    assert type(error) is expected
    assert error.advice()


def test_retry_after_is_seconds_or_a_date_by_the_clock_of_the_service() -> None:
    assert retry_after_seconds(Answer(retry_after="7")) == 7
    assert retry_after_seconds(Answer(retry_after="-7")) == 0
    date, later = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:30 GMT"
    assert retry_after_seconds(Answer(retry_after=later, date=date)) == 30
    assert retry_after_seconds(Answer(retry_after=date, date=later)) == 0
    assert retry_after_seconds(Answer(retry_after=later)) is None
    assert retry_after_seconds(Answer(retry_after="soon", date=date)) is None
    assert retry_after_seconds(Answer()) is None
