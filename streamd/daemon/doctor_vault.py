"""The vault's part of `streamd doctor`: can it be reached, what may we do, how is it set."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamd.config.model import Config
from streamd.daemon import compose
from streamd.daemon.credentials import access_of
from streamd.effects import SystemClock
from streamd.errors import StorageRefused, StreamdError
from streamd.format.keys import HostKey
from streamd.policy import diagnosis
from streamd.policy.diagnosis import Check
from streamd.storage import azure_management
from streamd.storage.azure_access import parse_url
from streamd.storage.azure_examine import Asking, ContainerFacts, Tried, examine, utc_seconds
from streamd.storage.port import BlobName

_HTTP_DATE_SECONDS: Final = 1.5  # a date is in whole seconds, and took time to arrive
_WRITE_ONLY_REMEDY: Final = (
    "this host is write-only: take the right away from its identity, or it can destroy the vault"
)


async def examine_vault(config: Config, token: str) -> list[Check]:
    """Return every check of the vault. `token` makes the probe's name unique."""
    checks = [_key_file(config)]
    if config.vault.directory is not None:
        return checks + await _directory(config, config.vault.directory, token)
    return checks + await _container(config, token)


def _key_file(config: Config) -> Check:
    path = config.vault.key_file
    try:
        key = compose.load_host_key(path)
    except StreamdError as error:
        return Check(
            area="vault",
            name="key file",
            verdict="fail",
            detail=str(error),
            remedy=error.advice(),
        )
    role = "full" if key.is_full else "write-only"
    return Check(area="vault", name="key file", verdict="ok", detail=f"{path}: role {role}")


# -- a directory ---------------------------------------------------------------------------------


async def _directory(config: Config, path: str, token: str) -> list[Check]:
    """Try what a directory vault needs: create once, read, delete."""
    name = BlobName(f"doctor/{token}")
    store = compose.open_stores(config).local
    checks = []
    try:
        await store.put(name, b"written by streamd doctor\n")
        checks.append(Check(area="vault", name="create", verdict="ok", detail="put and flushed"))
        await store.get(name)
        checks.append(Check(area="vault", name="read", verdict="ok", detail="read back"))
    except StreamdError as error:
        checks.append(_failed("create", error))
    else:
        try:
            await store.delete(name)
        except StreamdError as error:
            checks.append(_failed("delete", error))
        else:
            checks.append(Check(area="vault", name="delete", verdict="ok", detail="deleted again"))
    mode = await asyncio.to_thread(_mode, path)
    if mode is not None and mode & 0o077:
        checks.append(
            Check(
                area="vault",
                name="mode",
                verdict="warn",
                detail=f"{path} can be entered by others (mode {mode:04o})",
                remedy=f"chmod 0700 {path}",
            )
        )
    return checks


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        return None


def _failed(name: str, error: StreamdError) -> Check:
    return Check(area="vault", name=name, verdict="fail", detail=str(error), remedy=error.advice())


# -- a container ---------------------------------------------------------------------------------


async def _container(config: Config, token: str) -> list[Check]:
    from streamd.daemon import remote

    try:
        async with remote.lend_container(config) as store:
            facts = await examine(store, token, utc_seconds)
            lifecycle = await _lifecycle_rules(config, store)
    except StreamdError as error:
        return [_failed("reach", error)]  # such as a secret that cannot be read
    if facts.reached is not None:
        return [_failed("reach", facts.reached)]
    return [
        Check(area="vault", name="reach", verdict="ok", detail=parse_url(config.vault.url).host),
        *_credential(config),
        *_clock(facts),
        *_rights(facts, _host_key(config)),
        *_settings(facts),
        _lifecycle(config, lifecycle),
    ]


def _host_key(config: Config) -> HostKey | None:
    try:
        return compose.load_host_key(config.vault.key_file)
    except StreamdError:
        return None  # said already


def _credential(config: Config) -> Iterator[Check]:
    if config.vault.auth == "sas":
        until_us = access_of(config).expires_us
        now_us = SystemClock().now_us()
        yield diagnosis.expiry(None if until_us is None else (until_us - now_us) / 1e6)


def _clock(facts: ContainerFacts) -> Iterator[Check]:
    if facts.skew_seconds is not None:
        yield diagnosis.clock(facts.skew_seconds, uncertainty_seconds=_HTTP_DATE_SECONDS)


def _rights(facts: ContainerFacts, key: HostKey | None) -> Iterator[Check]:
    rights = facts.rights
    is_full = key is None or key.is_full
    for name, why in (
        ("create", "nothing can be protected"),
        ("read", "nothing can be restored, and a lost answer cannot be looked into"),
        ("list", "the index cannot be rebuilt, and nothing verified"),
    ):
        yield diagnosis.right(
            name,
            has=rights[name].has,
            wanted=True,
            detail=_said(rights[name], "tried and allowed"),
            remedy=f"give the identity this right; without it {why}",
        )
    yield diagnosis.right(
        "create only once",
        has=rights["keep"].has,
        wanted=True,
        detail=_said(rights["keep"], "a second put of the same name is refused"),
        remedy="this service does not keep to If-None-Match: a vault is not safe on it",
    )
    # A write-only host exists to be unable to destroy: there the absence is what is proven.
    for name in ("overwrite", "delete"):
        yield diagnosis.right(
            name,
            has=rights[name].has,
            wanted=None if is_full else False,
            detail=_said(rights[name], "tried and allowed"),
            remedy=_WRITE_ONLY_REMEDY,
        )


def _said(tried: Tried, allowed: str) -> str:
    if tried.has:
        return allowed
    if tried.error is None:
        return "not tried, for nothing could be created"
    if isinstance(tried.error, StorageRefused):
        return f"refused: {tried.error}"
    return str(tried.error)


def _settings(facts: ContainerFacts) -> Iterator[Check]:
    if facts.kind:
        yield Check(area="vault", name="account", verdict="ok", detail=facts.kind)
    yield _setting(
        "hierarchical namespace",
        facts.hierarchical,
        wanted=False,
        remedy="use an account without it: version-level immutability is not to be had there",
        is_fatal=True,
    )
    yield _setting(
        "versioning",
        facts.versioning,
        wanted=True,
        remedy="switch on blob versioning: what somebody overwrites is then read from its"
        " earlier version",
    )
    days = facts.soft_delete_days
    yield _setting(
        "soft delete",
        None if days is None else days > 0,
        wanted=True,
        remedy="switch on soft delete for blobs, 14 days or more",
    )
    yield _setting(
        "version-level immutability",
        facts.version_locks,
        wanted=True,
        remedy="only a new container can have it; without it an administrator can delete all",
    )


def _setting(
    name: str, found: bool | None, *, wanted: bool, remedy: str, is_fatal: bool = False
) -> Check:
    if found is None:
        return Check(
            area="vault",
            name=name,
            verdict="unknown",
            detail="not visible with the rights of this identity",
            remedy="look in the portal",
        )
    detail = "on" if found else "off"
    if found is wanted:
        return Check(area="vault", name=name, verdict="ok", detail=detail)
    return Check(
        area="vault",
        name=name,
        verdict="fail" if is_fatal else "warn",
        detail=detail,
        remedy=remedy,
    )


async def _lifecycle_rules(config: Config, store: Asking) -> list[Mapping[str, Any]] | str:
    """Return the account's rules, or why they cannot be known."""
    resource_id = config.vault.resource_id
    if not resource_id:
        return "rules are visible to the management plane only: set vault.resource_id"
    try:
        token = await store.token(azure_management.SCOPE)
    except StreamdError as error:
        return str(error)
    if token is None:
        return "a key or a SAS opens the data plane only"
    return await azure_management.lifecycle_rules(token, resource_id)


def _lifecycle(config: Config, rules: list[Mapping[str, Any]] | str) -> Check:
    if isinstance(rules, str):
        return diagnosis.lifecycle(None, rules)
    address = parse_url(config.vault.url)
    return diagnosis.lifecycle(diagnosis.touching(rules, address.container, address.prefix), "")
