"""The configuration, as types. This file is the reference: docs/config.md is generated from it.

Attributes carry their unit in the name and hold plain numbers; the keys of the TOML file are the
shorter aliases, written with a unit (`keep = "48h"` is `keep_seconds`). Everything is frozen. A
model knows one table; what concerns several tables is in `config.rules`, what concerns this host
is in `config.host`. Secrets are named here, never held here.
"""

import os
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from streamd.config import fields
from streamd.config.locate import Places
from streamd.config.table import (
    Choice,
    Flag,
    Inner,
    Many,
    Named,
    Table,
    Text,
    Unit,
    Whole,
    setting,
)
from streamd.config.units import (
    format_duration,
    format_rate,
    format_size,
    format_time_of_day,
    parse_duration,
    parse_rate,
    parse_size,
    parse_time_of_day,
)

HOUR: Final = 3_600
DAY: Final = 86_400

PATH: Final = Text(fields.absolute_path)
CREDENTIAL: Final = Text(fields.file_name)
WORDS: Final = Many(Text(fields.argument))
FLAG: Final = Flag()
COUNT: Final = Whole()
FREE_SPACE: Final = Unit(fields.free_space, fields.free_space_text, '"10%" or "20GiB"')
MINUTE: Final = Unit(parse_time_of_day, format_time_of_day, '"22:00"')
RATE: Final = Unit(parse_rate, format_rate, '"5MiB/s"', least=1)
WEEKDAYS: Final = Unit(fields.weekdays, fields.weekdays_text, '"mon-fri"')


def seconds(least: int) -> Unit:
    """Return the kind of a duration that is not shorter than `least`."""
    return Unit(parse_duration, format_duration, '"15s"', least=least)


def size(least: int) -> Unit:
    """Return the kind of a size that is not below `least`."""
    return Unit(parse_size, format_size, '"64MiB"', least=least)


SECONDS: Final = seconds(0)
BYTES: Final = size(0)


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret is kept: in a file or in a systemd credential, exactly one of them."""

    key: str
    file: str | None = None
    credential: str | None = None


class VaultConfig(Table):
    """Where the recovery points live, and who we are there."""

    url: str = setting(
        Text(fields.vault_url),
        "file:///srv/vault",
        "A directory (`file:///srv/vault`) or a container with an optional prefix"
        " (`https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX`).",
    )
    auth: Literal[
        "default",
        "managed-identity",
        "workload-identity",
        "service-principal",
        "sas",
        "shared-key",
        "connection-string",
    ] = setting(
        Choice(
            "default",
            "managed-identity",
            "workload-identity",
            "service-principal",
            "sas",
            "shared-key",
            "connection-string",
        ),
        "default",
        "How this host proves to Azure who it is.",
    )
    client_id: str | None = setting(
        Text(), None, "The identity to use, where several are possible."
    )
    tenant_id: str | None = setting(Text(), None, "The tenant of a service principal.")
    sas_file: str | None = setting(PATH, None, "A file that holds the SAS token.")
    sas_credential: str | None = setting(
        CREDENTIAL, None, "The systemd credential that holds the SAS token."
    )
    shared_key_file: str | None = setting(
        PATH, None, "A file that holds the key of the storage account."
    )
    shared_key_credential: str | None = setting(
        CREDENTIAL, None, "The systemd credential that holds the account's key."
    )
    connection_string_file: str | None = setting(
        PATH, None, "A file that holds a connection string."
    )
    connection_string_credential: str | None = setting(
        CREDENTIAL, None, "The systemd credential that holds a connection string."
    )
    client_secret_file: str | None = setting(
        PATH, None, "A file that holds a service principal's secret."
    )
    client_secret_credential: str | None = setting(
        CREDENTIAL, None, "The systemd credential that holds a service principal's secret."
    )
    certificate_file: str | None = setting(
        PATH, None, "A service principal's certificate with its private key, PEM."
    )
    create_container: bool = setting(FLAG, False, "Create the container when it is missing.")
    ca_file: str | None = setting(
        PATH, None, "Certificate authorities to trust instead of the system's, PEM."
    )
    proxy: str | None = setting(
        Text(fields.proxy_url), None, "An HTTP proxy (`http://USER@HOST:PORT`), without a password."
    )
    proxy_password_file: str | None = setting(
        PATH, None, "A file that holds the password for the proxy."
    )
    proxy_password_credential: str | None = setting(
        CREDENTIAL, None, "The systemd credential that holds the proxy's password."
    )
    resource_id: str | None = setting(
        Text(),
        None,
        "The storage account as the management plane calls it"
        " (`/subscriptions/…/storageAccounts/NAME`): lets `streamd doctor` see lifecycle rules.",
    )
    key_file: str = setting(
        PATH, "/etc/streamd/vault.key", "This host's keys: what it may do is what this file holds."
    )

    @property
    def directory(self) -> str | None:
        """Return the path of a directory vault; None when the vault is a container."""
        parts = urlsplit(self.url)
        return unquote(parts.path) if parts.scheme == "file" else None

    def named_secret(self, kind: str) -> SecretSource | None:
        """Return where the secret `kind` (`sas`, `shared_key`, …) is; None if it is not named."""
        file = getattr(self, f"{kind}_file")
        credential = getattr(self, f"{kind}_credential", None)
        if file is None and credential is None:
            return None
        return SecretSource(key=f"vault.{kind}", file=file, credential=credential)


class LocalConfig(Table):
    """The operational copy and the spool in front of a container."""

    path: str = setting(PATH, "/var/lib/streamd/local", "The directory.")
    keep_seconds: int = setting(
        SECONDS, 48 * HOUR, "How long uploaded data stays here.", key="keep"
    )
    max_size_bytes: int = setting(BYTES, 200 << 30, "The most it may occupy.", key="max_size")
    min_free: float = setting(
        FREE_SPACE, 0.1, "What must stay free on its file system, a percentage or a size."
    )
    seed: Literal["auto", "copy", "bypass"] = setting(
        Choice("auto", "copy", "bypass"),
        "auto",
        "How packs go when this copy is at a bound: `auto` sends them to the container"
        " directly, `copy` has them wait. `bypass` sends those of a first capture directly anyway.",
    )


class SourceConfig(Table):
    """One thing protected. Its name is part of the vault: renaming it starts a new history."""

    kind: Literal["filesystem", "command"] = setting(
        Choice("filesystem", "command"),
        "filesystem",
        "What it is: `filesystem`, or `command` for what a program writes to its standard output.",
    )
    paths: tuple[str, ...] = setting(
        Many(PATH), (), "Absolute paths of files or directory trees; required but for a command."
    )
    exclude: tuple[str, ...] = setting(
        Many(Text(fields.pattern)), (), "What to leave out: gitignore syntax, last match wins."
    )
    policy: str = setting(Text(), "default", "The retention policy.")
    rpo_seconds: int = setting(
        seconds(1),
        15,
        "How much recent change may be lost, as a time; an alert when it is more. For a command"
        " its `every`, if not given.",
        key="rpo",
    )
    one_file_system: bool = setting(FLAG, False, "Do not descend into other mounted file systems.")
    exclude_if_present: tuple[str, ...] = setting(
        Many(Text(fields.file_name)),
        (),
        'Leave out a directory holding a file of this name (".nobackup").',
    )
    max_file_size_bytes: int | None = setting(
        BYTES, None, "Leave out larger files; each is reported as too large.", key="max_file_size"
    )
    reconcile_seconds: int = setting(
        seconds(1),
        HOUR,
        "How often, give or take a quarter, everything is compared with what was captured, to"
        " find changes that no event announced.",
        key="reconcile",
    )
    reread_seconds: int = setting(
        SECONDS,
        100 * DAY,
        "Every file is read again once in this time, although nothing says that it changed, and"
        " compared with what was captured; `0s` never.",
        key="reread",
    )
    canary_seconds: int = setting(
        SECONDS,
        300,
        "How often the file `.streamd/canary` is written, to see that it arrives in the vault; in"
        " the first of the paths with a directory `.streamd` that streamd may write to, so nowhere"
        " unless you make one. `0s` never.",
        key="canary",
    )

    sqlite: Literal["backup", "plain"] = setting(
        Choice("backup", "plain"),
        "backup",
        "How SQLite databases in WAL mode are captured: by SQLite's own `backup`, so"
        " that they open consistent, or `plain`, as files like others.",
    )
    command: tuple[str, ...] = setting(
        WORDS,
        (),
        "For a command: the program and its arguments, run without a shell. What it"
        " writes to its standard output is captured when it ends with status 0.",
    )
    every_seconds: int = setting(
        seconds(60), HOUR, "For a command: how often it runs; at least a minute.", key="every"
    )
    timeout_seconds: int = setting(
        seconds(1),
        6 * HOUR,
        "For a command: it is ended, and has failed, when it takes longer.",
        key="timeout",
    )
    min_size_bytes: int = setting(
        BYTES, 1, "For a command: less output than this is a failure.", key="min_size"
    )
    file_name: str = setting(
        Text(fields.file_name), "output", "For a command: the name under which it is restored."
    )
    before_capture: tuple[str, ...] = setting(
        WORDS, (), "A program, with its arguments, to run before each capture, without a shell."
    )
    after_capture: tuple[str, ...] = setting(
        WORDS, (), "A program to run after each capture, whether it went well or not."
    )
    hook_timeout_seconds: int = setting(
        seconds(1), 60, "A hook that takes longer is ended, and has failed.", key="hook_timeout"
    )
    hook_failure: Literal["mark", "refuse"] = setting(
        Choice("mark", "refuse"),
        "mark",
        "What a failed `before_capture` means: `mark` captures all the same and reports"
        " a problem, `refuse` captures nothing until the hook succeeds.",
    )

    @classmethod
    def completed(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """A command runs now and then: what it captured may be as old as that."""
        if data.get("kind") == "command" and "rpo" not in data:
            return {**data, "rpo": data.get("every", format_duration(HOUR))}
        return data

    @property
    def path_bytes(self) -> tuple[bytes, ...]:
        """Return the paths as the kernel knows them; for a command, where its output stands."""
        if self.kind == "command":
            return (b"/" + os.fsencode(self.file_name),)
        return tuple(os.fsencode(path) for path in self.paths)


class PolicyConfig(Table):
    """Which recovery points are kept. A point that any rule keeps is kept."""

    continuous_seconds: int = setting(
        SECONDS, 48 * HOUR, "Every version, any instant, for so long.", key="continuous"
    )
    hourly: int = setting(COUNT, 0, "The last point of each of so many hours.")
    daily: int = setting(COUNT, 0, "The last point of each of so many days.")
    weekly: int = setting(COUNT, 0, "The last point of each of so many weeks.")
    monthly: int = setting(COUNT, 0, "The last point of each of so many months.")
    yearly: int = setting(COUNT, 0, "The last point of each of so many years.")
    keep_deleted_seconds: int = setting(
        SECONDS,
        0,
        "Accepted, and not acted on yet: keep the last version of a deleted file at least so long.",
        key="keep_deleted",
    )


DEFAULT_POLICY: Final = PolicyConfig(hourly=168, daily=30, weekly=12, monthly=12, yearly=7)


class DaemonConfig(Table):
    """The daemon itself."""

    state: str = setting(
        PATH, "/var/lib/streamd", "Catalog and index: both can be rebuilt from the vault."
    )
    socket: str = setting(
        PATH, "/run/streamd/control.sock", "Where `streamd status` and others ask."
    )


class MetricsConfig(Table):
    """Prometheus metrics and health pages."""

    listen: str = setting(
        Text(fields.listen), "127.0.0.1:9464", "Address and port; empty or `off` for none."
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Return host and port to listen on, or None when metrics are off."""
        return fields.host_and_port(self.listen)


class PipelineConfig(Table):
    """How bytes travel from the sources to the vault."""

    memory_limit_bytes: int = setting(
        size(64 << 20),
        256 << 20,
        "What all data in flight may occupy together; at least 64MiB.",
        key="memory_limit",
    )
    compression: str = setting(
        Text(fields.compression),
        "auto",
        "`auto` (lz4 while processors are short, zstd 3 to 9 while the uplink is, else"
        " zstd 1), `lz4`, `zstd:1` … `zstd:19`, or `none`.",
    )


class BandwidthWindow(Table):
    """A limit on uploads for some hours of some days. Where windows overlap, the lowest counts."""

    days: tuple[int, ...] = setting(
        WEEKDAYS, (0, 1, 2, 3, 4, 5, 6), "`mon-fri`, `sat,sun` …; every day if not given."
    )
    start_minute: int = setting(MINUTE, 0, "When it begins, as a time of day.", key="from")
    end_minute: int = setting(
        MINUTE, 1_440, "When it ends; before `from` means on the next day.", key="to"
    )
    upload_bytes_per_second: int = setting(RATE, description="The limit.", key="upload")


class RetentionConfig(Table):
    """When the daemon enforces the policies."""

    interval_seconds: int = setting(
        seconds(60),
        HOUR,
        "How often the daemon thins and deletes; at least a minute.",
        key="interval",
    )


class VerifyConfig(Table):
    """When the daemon proves the vault, and how deep. A duration of 0s means never."""

    list_seconds: int = setting(SECONDS, 24 * HOUR, "How often the listing is proved.", key="list")
    structure_seconds: int = setting(
        SECONDS,
        24 * HOUR,
        "How often journals, checkpoints and indexes are read; besides, after each checkpoint.",
        key="structure",
    )
    sample_seconds: int = setting(
        SECONDS,
        24 * HOUR,
        "How often a random part of the content is read and hashed.",
        key="sample",
    )
    full_seconds: int = setting(SECONDS, 0, "How often everything is read.", key="full")
    frames: int = setting(
        COUNT,
        0,
        "How many frames a sample reads; 0: 4603, which meet a thousandth of damage with 99 %.",
    )
    heal: bool = setting(FLAG, True, "Store damaged content again if this host still has it.")


class Config(Table):
    """The whole configuration, as the daemon uses it."""

    timezone: str = setting(
        Text(fields.timezone),
        "",
        "The IANA time zone of hours, days and months in policies, windows and"
        " output; the system's if empty.",
    )
    vault: VaultConfig = setting(Inner(VaultConfig), VaultConfig)
    local: LocalConfig | None = setting(Inner(LocalConfig), None)
    sources: dict[str, SourceConfig] = setting(Named(fields.name, SourceConfig), dict)
    policies: dict[str, PolicyConfig] = setting(Named(fields.name, PolicyConfig), dict)
    daemon: DaemonConfig = setting(Inner(DaemonConfig), DaemonConfig)
    metrics: MetricsConfig = setting(Inner(MetricsConfig), MetricsConfig)
    pipeline: PipelineConfig = setting(Inner(PipelineConfig), PipelineConfig)
    bandwidth: tuple[BandwidthWindow, ...] = setting(Many(Inner(BandwidthWindow)), ())
    retention: RetentionConfig = setting(Inner(RetentionConfig), RetentionConfig)
    verify: VerifyConfig = setting(Inner(VerifyConfig), VerifyConfig)

    @property
    def places(self) -> Places:
        """Return where each key stands in the files, as far as the configuration has files."""
        known = self.__dict__.get("_places")
        return known if isinstance(known, Places) else Places()

    def placed(self, places: Places) -> "Config":
        """Return the same configuration that knows where its keys stand."""
        return self.but(_places=places)

    def policy_of(self, source: str) -> PolicyConfig:
        """Return the policy of the source called `source`: its own, or the built-in default."""
        name = self.sources[source].policy
        return self.policies.get(name, DEFAULT_POLICY)
