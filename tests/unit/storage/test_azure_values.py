"""Addresses, secrets and the meaning of the service's answers, without a service."""

from dataclasses import replace

import pytest

from streamd.errors import (
    BlobNotFound,
    ClockSkewed,
    ConfigInvalid,
    ContainerMissing,
    CredentialExpired,
    CredentialRejected,
    FirewallRefused,
    ProxyRefused,
    RightMissing,
    StorageRefused,
    StorageThrottled,
    VaultDamaged,
    VaultUnreachable,
)
from streamd.storage.azure_access import AzureAccess, parse_url, sas_moment_us
from streamd.storage.azure_errors import (
    Answer,
    Asked,
    meaning,
    retry_after_seconds,
    without_secrets,
)

ASKED = Asked(
    doing="get", name="p/a", container="cont", endpoint="acc.blob.core.windows.net", now_us=1
)


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
    assert (
        sas_moment_us("?sv=2024&se=2026-01-02T03%3A04%3A05Z&sig=x", "se") == 1_767_323_045_000_000
    )
    assert sas_moment_us("se=2026-01-02", "se") == 1_767_312_000_000_000
    assert sas_moment_us("sv=2024&si=policy", "se") is None
    assert sas_moment_us("se=soon", "se") is None


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "BlobNotFound", BlobNotFound),
        (404, "ContainerNotFound", ContainerMissing),
        (409, "ContainerBeingDeleted", ContainerMissing),
        (404, None, VaultUnreachable),  # a proxy's: nothing is said about our object
        (401, "NoAuthenticationInformation", CredentialRejected),
        (403, "AuthorizationPermissionMismatch", RightMissing),
        (403, "AuthenticationFailed", CredentialRejected),
        (401, "InvalidAuthenticationInfo", CredentialRejected),
        (403, "KeyBasedAuthenticationNotPermitted", CredentialRejected),
        (403, "AuthorizationFailure", FirewallRefused),
        (403, "AuthorizationSourceIPMismatch", FirewallRefused),
        (403, "AuthorizationServiceMismatch", RightMissing),
        (403, None, StorageRefused),
        (407, None, ProxyRefused),
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


NOW = "Wed, 21 Oct 2015 07:28:00 GMT"
NOW_US = 1_445_412_480_000_000
MINUTE_US = 60_000_000


@pytest.mark.parametrize(
    ("text", "ours_us", "begins_us", "expires_us", "expected"),
    [
        ("", NOW_US, None, None, CredentialRejected),
        ("", NOW_US + 4 * MINUTE_US, None, None, CredentialRejected),
        ("", NOW_US + 20 * MINUTE_US, None, None, ClockSkewed),
        ("", NOW_US - 20 * MINUTE_US, None, None, ClockSkewed),
        ("", NOW_US, NOW_US + MINUTE_US, None, ClockSkewed),
        ("", NOW_US, NOW_US - MINUTE_US, NOW_US + MINUTE_US, CredentialRejected),
        ("", NOW_US, None, NOW_US - MINUTE_US, CredentialExpired),
        (
            "Lifetime validation failed. The token is expired.",
            NOW_US,
            None,
            None,
            CredentialExpired,
        ),
    ],
)
def test_why_a_credential_is_not_taken_is_told_apart(
    text: str, ours_us: int, begins_us: int | None, expires_us: int | None, expected: type
) -> None:
    asked = replace(ASKED, now_us=ours_us, begins_us=begins_us, expires_us=expires_us)
    answer = Answer(status=403, code="AuthenticationFailed", text=text, date=NOW)
    error = meaning(answer, asked)
    assert type(error) is expected
    assert error.advice()


def test_without_the_storages_time_our_own_decides_about_a_sas() -> None:
    answer = Answer(status=403, code="AuthenticationFailed")
    assert type(meaning(answer, replace(ASKED, now_us=2, expires_us=1))) is CredentialExpired
    assert type(meaning(answer, replace(ASKED, now_us=1, begins_us=2))) is ClockSkewed


def test_the_emulators_word_for_a_wrong_key_is_no_firewall() -> None:
    answer = Answer(403, "AuthorizationFailure", "Server failed to authenticate the request.")
    assert type(meaning(answer, ASKED)) is CredentialRejected


def test_what_is_not_encrypted_stays_on_this_machine() -> None:
    with pytest.raises(ConfigInvalid, match="https"):
        parse_url("http://acc.blob.core.windows.net/cont")
    with pytest.raises(ConfigInvalid, match="https"):
        parse_url("http://10.0.0.1/acc/cont")
    parse_url("http://127.0.0.1:10000/acc/cont")


def test_an_access_knows_when_its_sas_begins_and_ends() -> None:
    token = "st=2026-01-01&se=2026-01-02&sig=x"
    for access in (
        AzureAccess(url="https://a.b/c", auth="sas", secret=token),
        AzureAccess(
            url="https://a.b/c",
            auth="connection-string",
            secret=f"BlobEndpoint=x;SharedAccessSignature={token};Other=1",
        ),
    ):
        assert access.begins_us == 1_767_225_600_000_000
        assert access.expires_us == 1_767_312_000_000_000
    assert AzureAccess(url="https://a.b/c", auth="shared-key", secret="a==").expires_us is None
    assert AzureAccess(url="https://a.b/c", auth="connection-string").expires_us is None
