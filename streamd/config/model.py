"""The configuration, as types. This file is the reference: docs/config.md is generated from it.

Attributes carry their unit in the name and hold plain numbers; the keys of the TOML file are the
shorter aliases, written with a unit (`keep = "48h"` is `keep_seconds`). Everything is frozen. A
model knows one table; what concerns several tables is in `config.rules`, what concerns this host
is in `config.host`. Secrets are named here, never held here.
"""

import os
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    model_validator,
)

from streamd.config import fields
from streamd.config.locate import Places
from streamd.config.units import format_duration, format_rate, format_size, format_time_of_day

HOUR: Final = 3_600
DAY: Final = 86_400

Seconds = Annotated[
    int, BeforeValidator(fields.seconds), PlainSerializer(format_duration), Field(ge=0)
]
Bytes = Annotated[int, BeforeValidator(fields.size), PlainSerializer(format_size), Field(ge=0)]
BytesPerSecond = Annotated[
    int, BeforeValidator(fields.rate), PlainSerializer(format_rate), Field(ge=1)
]
FreeSpace = Annotated[  # a float is a ratio of the file system, an integer is bytes
    float | int, BeforeValidator(fields.free_space), PlainSerializer(fields.free_space_text)
]
MinuteOfDay = Annotated[
    int, BeforeValidator(fields.minute), PlainSerializer(format_time_of_day), Field(ge=0, le=1_440)
]
Count = Annotated[int, Field(ge=0, strict=True)]
Name = Annotated[str, AfterValidator(fields.name)]
CredentialName = Annotated[str, AfterValidator(fields.file_name)]
AbsolutePath = Annotated[str, AfterValidator(fields.absolute_path)]
Pattern = Annotated[str, AfterValidator(fields.pattern)]
Argument = Annotated[str, AfterValidator(fields.argument)]
Weekdays = Annotated[
    tuple[int, ...], BeforeValidator(fields.weekdays), PlainSerializer(fields.weekdays_text)
]


def _key(name: str, default: Any, description: str) -> Any:
    """Return a field whose TOML key is `name` and whose attribute is called otherwise."""
    return Field(default, validation_alias=name, serialization_alias=name, description=description)


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is kept: in a file or in a systemd credential, exactly one of them."""

    key: str
    file: str | None = None
    credential: str | None = None


class Table(BaseModel):
    """A TOML table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # once, as parts of the whole, instead of each by itself as well
    )


class VaultConfig(Table):
    """Where the recovery points live, and who we are there."""

    url: Annotated[str, AfterValidator(fields.vault_url)] = Field(
        default="file:///srv/vault",
        description="A directory (`file:///srv/vault`) or a container with an optional prefix"
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
    ] = Field(default="default", description="How this host proves to Azure who it is.")
    client_id: str | None = Field(
        default=None, description="The identity to use, where several are possible."
    )
    tenant_id: str | None = Field(default=None, description="The tenant of a service principal.")
    sas_file: AbsolutePath | None = Field(
        default=None, description="A file that holds the SAS token."
    )
    sas_credential: CredentialName | None = Field(
        default=None, description="The systemd credential that holds the SAS token."
    )
    shared_key_file: AbsolutePath | None = Field(
        default=None, description="A file that holds the key of the storage account."
    )
    shared_key_credential: CredentialName | None = Field(
        default=None, description="The systemd credential that holds the account's key."
    )
    connection_string_file: AbsolutePath | None = Field(
        default=None, description="A file that holds a connection string."
    )
    connection_string_credential: CredentialName | None = Field(
        default=None, description="The systemd credential that holds a connection string."
    )
    client_secret_file: AbsolutePath | None = Field(
        default=None, description="A file that holds a service principal's secret."
    )
    client_secret_credential: CredentialName | None = Field(
        default=None, description="The systemd credential that holds a service principal's secret."
    )
    certificate_file: AbsolutePath | None = Field(
        default=None, description="A service principal's certificate with its private key, PEM."
    )
    create_container: bool = Field(
        default=False, description="Create the container when it is missing."
    )
    ca_file: AbsolutePath | None = Field(
        default=None, description="Certificate authorities to trust instead of the system's, PEM."
    )
    proxy: Annotated[str, AfterValidator(fields.proxy_url)] | None = Field(
        default=None, description="An HTTP proxy (`http://USER@HOST:PORT`), without a password."
    )
    proxy_password_file: AbsolutePath | None = Field(
        default=None, description="A file that holds the password for the proxy."
    )
    proxy_password_credential: CredentialName | None = Field(
        default=None, description="The systemd credential that holds the proxy's password."
    )
    resource_id: str | None = Field(
        default=None,
        description="The storage account as the management plane calls it"
        " (`/subscriptions/…/storageAccounts/NAME`): lets `streamd doctor` see lifecycle rules.",
    )
    key_file: AbsolutePath = Field(
        default="/etc/streamd/vault.key",
        description="This host's keys: what it may do is what this file holds.",
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

    path: AbsolutePath = Field(default="/var/lib/streamd/local", description="The directory.")
    keep_seconds: Seconds = _key("keep", 48 * HOUR, "How long uploaded data stays here.")
    max_size_bytes: Bytes = _key("max_size", 200 << 30, "The most it may occupy.")
    min_free: FreeSpace = Field(
        default=0.1, description="What must stay free on its file system, a percentage or a size."
    )
    seed: Literal["auto", "copy", "bypass"] = Field(
        default="auto",
        description="How packs go when this copy is at a bound: `auto` sends them to the container"
        " directly, `copy` has them wait. `bypass` sends those of a first capture directly anyway.",
    )


class SourceConfig(Table):
    """One thing protected. Its name is part of the vault: renaming it starts a new history."""

    kind: Literal["filesystem", "command"] = Field(
        default="filesystem",
        description="What it is: `filesystem`, or `command` for what a program writes to its"
        " standard output.",
    )
    paths: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Absolute paths of files or directory trees; required but for a command.",
    )
    exclude: tuple[Pattern, ...] = Field(
        default=(), description="What to leave out: gitignore syntax, last match wins."
    )
    policy: str = Field(default="default", description="The retention policy.")
    rpo_seconds: Annotated[Seconds, AfterValidator(fields.at_least(1, format_duration))] = _key(
        "rpo",
        15,
        "How much recent change may be lost, as a time; an alert when it is more. For a command"
        " its `every`, if not given.",
    )
    one_file_system: bool = Field(
        default=False, description="Do not descend into other mounted file systems."
    )
    exclude_if_present: tuple[Annotated[str, AfterValidator(fields.file_name)], ...] = Field(
        default=(), description='Leave out a directory holding a file of this name (".nobackup").'
    )
    max_file_size_bytes: Bytes | None = _key(
        "max_file_size", None, "Leave out larger files; each is reported as too large."
    )
    reconcile_seconds: Annotated[Seconds, AfterValidator(fields.at_least(1, format_duration))] = (
        _key(
            "reconcile",
            HOUR,
            "How often, give or take a quarter, everything is compared with what was captured, to"
            " find changes that no event announced.",
        )
    )
    reread_seconds: Seconds = _key(
        "reread",
        100 * DAY,
        "Every file is read again once in this time, although nothing says that it changed, and"
        " compared with what was captured; `0s` never.",
    )
    canary_seconds: Seconds = _key(
        "canary",
        300,
        "How often the file `.streamd/canary` is written, to see that it arrives in the vault; in"
        " the first of the paths with a directory `.streamd` that streamd may write to, so nowhere"
        " unless you make one. `0s` never.",
    )

    sqlite: Literal["backup", "plain"] = Field(
        default="backup",
        description="How SQLite databases in WAL mode are captured: by SQLite's own `backup`, so"
        " that they open consistent, or `plain`, as files like others.",
    )
    command: tuple[Argument, ...] = Field(
        default=(),
        description="For a command: the program and its arguments, run without a shell. What it"
        " writes to its standard output is captured when it ends with status 0.",
    )
    every_seconds: Annotated[Seconds, AfterValidator(fields.at_least(60, format_duration))] = _key(
        "every", HOUR, "For a command: how often it runs; at least a minute."
    )
    timeout_seconds: Annotated[Seconds, AfterValidator(fields.at_least(1, format_duration))] = _key(
        "timeout", 6 * HOUR, "For a command: it is ended, and has failed, when it takes longer."
    )
    min_size_bytes: Bytes = _key(
        "min_size", 1, "For a command: less output than this is a failure."
    )
    file_name: Annotated[str, AfterValidator(fields.file_name)] = Field(
        default="output", description="For a command: the name under which it is restored."
    )
    before_capture: tuple[Argument, ...] = Field(
        default=(),
        description="A program, with its arguments, to run before each capture, without a shell.",
    )
    after_capture: tuple[Argument, ...] = Field(
        default=(), description="A program to run after each capture, whether it went well or not."
    )
    hook_timeout_seconds: Annotated[
        Seconds, AfterValidator(fields.at_least(1, format_duration))
    ] = _key("hook_timeout", 60, "A hook that takes longer is ended, and has failed.")
    hook_failure: Literal["mark", "refuse"] = Field(
        default="mark",
        description="What a failed `before_capture` means: `mark` captures all the same and reports"
        " a problem, `refuse` captures nothing until the hook succeeds.",
    )

    @model_validator(mode="before")
    @classmethod
    def _pace(cls, data: Any) -> Any:
        """A command runs now and then: what it captured may be as old as that."""
        if isinstance(data, dict) and data.get("kind") == "command" and "rpo" not in data:
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

    continuous_seconds: Seconds = _key(
        "continuous", 48 * HOUR, "Every version, any instant, for so long."
    )
    hourly: Count = Field(default=0, description="The last point of each of so many hours.")
    daily: Count = Field(default=0, description="The last point of each of so many days.")
    weekly: Count = Field(default=0, description="The last point of each of so many weeks.")
    monthly: Count = Field(default=0, description="The last point of each of so many months.")
    yearly: Count = Field(default=0, description="The last point of each of so many years.")
    keep_deleted_seconds: Seconds = _key(
        "keep_deleted", 0, "Keep the last version of a deleted file at least so long."
    )


DEFAULT_POLICY: Final = PolicyConfig(hourly=168, daily=30, weekly=12, monthly=12, yearly=7)


class DaemonConfig(Table):
    """The daemon itself."""

    state: AbsolutePath = Field(
        default="/var/lib/streamd",
        description="Catalog and index: both can be rebuilt from the vault.",
    )
    socket: AbsolutePath = Field(
        default="/run/streamd/control.sock", description="Where `streamd status` and others ask."
    )


class MetricsConfig(Table):
    """Prometheus metrics and health pages."""

    listen: Annotated[str, AfterValidator(fields.listen)] = Field(
        default="127.0.0.1:9464", description="Address and port; empty or `off` for none."
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Return host and port to listen on, or None when metrics are off."""
        return fields.host_and_port(self.listen)


class PipelineConfig(Table):
    """How bytes travel from the sources to the vault."""

    memory_limit_bytes: Annotated[Bytes, AfterValidator(fields.at_least(64 << 20, format_size))] = (
        _key(
            "memory_limit",
            256 << 20,
            "What all data in flight may occupy together; at least 64MiB.",
        )
    )
    compression: Annotated[str, AfterValidator(fields.compression)] = Field(
        default="auto",
        description="`auto` (lz4 while processors are short, zstd 3 to 9 while the uplink is, else"
        " zstd 1), `lz4`, `zstd:1` … `zstd:19`, or `none`.",
    )


class BandwidthWindow(Table):
    """A limit on uploads for some hours of some days. Where windows overlap, the lowest counts."""

    days: Weekdays = Field(
        default=(0, 1, 2, 3, 4, 5, 6), description="`mon-fri`, `sat,sun` …; every day if not given."
    )
    start_minute: MinuteOfDay = _key("from", 0, "When it begins, as a time of day.")
    end_minute: MinuteOfDay = _key(
        "to", 1_440, "When it ends; before `from` means on the next day."
    )
    upload_bytes_per_second: BytesPerSecond = Field(
        validation_alias="upload", serialization_alias="upload", description="The limit."
    )


class RetentionConfig(Table):
    """When the daemon enforces the policies."""

    interval_seconds: Annotated[Seconds, AfterValidator(fields.at_least(60, format_duration))] = (
        _key("interval", HOUR, "How often the daemon thins and deletes; at least a minute.")
    )


class VerifyConfig(Table):
    """When the daemon proves the vault, and how deep. A duration of 0s means never."""

    list_seconds: Seconds = _key("list", 24 * HOUR, "How often the listing is proved.")
    structure_seconds: Seconds = _key(
        "structure",
        24 * HOUR,
        "How often journals, checkpoints and indexes are read; besides, after each checkpoint.",
    )
    sample_seconds: Seconds = _key(
        "sample", 24 * HOUR, "How often a random part of the content is read and hashed."
    )
    full_seconds: Seconds = _key("full", 0, "How often everything is read.")
    frames: Count = Field(
        default=0,
        description="How many frames a sample reads; 0: 4603, which meet a thousandth of damage"
        " with 99 %.",
    )
    heal: bool = Field(
        default=True, description="Store damaged content again if this host still has it."
    )


class Config(Table):
    """The whole configuration, as the daemon uses it."""

    timezone: Annotated[str, AfterValidator(fields.timezone)] = Field(
        default="",
        description="The IANA time zone of hours, days and months in policies, windows and"
        " output; the system's if empty.",
    )
    vault: VaultConfig = Field(default_factory=VaultConfig)
    local: LocalConfig | None = Field(default=None)
    sources: dict[Name, SourceConfig] = Field(default_factory=dict)
    policies: dict[Name, PolicyConfig] = Field(default_factory=dict)
    daemon: DaemonConfig = Field(default_factory=DaemonConfig)
    metrics: MetricsConfig = Field(default_factory=MetricsConfig)
    pipeline: PipelineConfig = Field(default_factory=PipelineConfig)
    bandwidth: tuple[BandwidthWindow, ...] = Field(default=())
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    verify: VerifyConfig = Field(default_factory=VerifyConfig)
    _places: Places = PrivateAttr(default_factory=Places)

    @property
    def places(self) -> Places:
        """Return where each key stands in the files, as far as the configuration has files."""
        return self._places

    def placed(self, places: Places) -> "Config":
        """Return the same configuration that knows where its keys stand."""
        copy = self.model_copy()
        copy._places = places  # noqa: SLF001 - our own
        return copy

    def policy_of(self, source: str) -> PolicyConfig:
        """Return the policy of the source called `source`: its own, or the built-in default."""
        name = self.sources[source].policy
        return self.policies.get(name, DEFAULT_POLICY)
