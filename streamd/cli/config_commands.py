"""`streamd config check|show|diff`: validate, print what is in force, say what a reload changes."""

from typing import Annotated, Any

import msgspec

from streamd.cli.context import config_path, emit, load_config, note
from streamd.cli.declare import argument, option
from streamd.config.diff import ConfigChanges
from streamd.config.diff import diff as changes_between
from streamd.config.model import Config
from streamd.config.toml import to_toml


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `config check --json` prints."""

    file: str
    source_count: int
    policy_count: int
    warnings: tuple[str, ...] = ()  # what is set and not acted on


class ShowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `config show --json` prints: the configuration by its TOML keys, defaults included."""

    file: str
    config: dict[str, Any]


class DiffReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `config diff --json` prints."""

    added_sources: tuple[str, ...]
    removed_sources: tuple[str, ...]
    changed_sources: tuple[str, ...]
    applies: tuple[str, ...]
    needs_restart: tuple[str, ...]


def check(
    values_only: Annotated[
        bool,
        option("--values-only", help="Do not look at this host: its paths and secrets."),
    ] = False,
) -> None:
    """Validate the configuration and print every problem with file and line.

    Example: streamd config check -c /etc/streamd/streamd.toml
    """
    from streamd.config.host import check_host
    from streamd.config.unheeded import unheeded

    config = load_config()
    if not values_only:
        check_host(config)
    warnings = unheeded(config)
    for each in warnings:
        note(f"warning: {each}")
    report = CheckReport(
        file=config_path(),
        source_count=len(config.sources),
        policy_count=len(config.policies),
        warnings=warnings,
    )
    emit(report, _check_text)


def _check_text(report: CheckReport) -> str:
    counts = f"sources: {report.source_count}, policies: {report.policy_count}"
    return f"{report.file}: valid ({counts})"


def show() -> None:
    """Print the effective configuration, defaults included, as TOML.

    Example: streamd config show
    """
    report = ShowReport(file=config_path(), config=effective(load_config()))
    emit(report, lambda shown: f"# {shown.file}\n{to_toml(shown.config)}")


def effective(config: Config) -> dict[str, Any]:
    """Return `config` by its TOML keys, with the built-in policy where a source uses it."""
    used = {source.policy: config.policy_of(name) for name, source in config.sources.items()}
    whole = config.but(policies={**used, **config.policies})
    return whole.written()


def diff(
    other: Annotated[str, argument(metavar="OLD", help="The configuration to compare with.")],
) -> None:
    """Say what changes when a daemon that runs with OLD is given this configuration.

    Example: streamd config diff /etc/streamd/streamd.toml -c new.toml
    """
    emit(_diff_report(load_config(other), load_config()), _diff_text)


def _diff_report(old: Config, new: Config) -> DiffReport:
    changes: ConfigChanges = changes_between(old, new)
    return DiffReport(
        added_sources=changes.added_sources,
        removed_sources=changes.removed_sources,
        changed_sources=changes.changed_sources,
        applies=changes.applies,
        needs_restart=changes.needs_restart,
    )


def _diff_text(report: DiffReport) -> str:
    lines = [
        *(f"new source       {name}" for name in report.added_sources),
        *(f"removed source   {name}" for name in report.removed_sources),
        *(f"changed source   {name}" for name in report.changed_sources),
        *(f"changed          {key}" for key in report.applies),
        *(f"needs a restart  {key}" for key in report.needs_restart),
    ]
    return "\n".join(lines) or "nothing changes"
