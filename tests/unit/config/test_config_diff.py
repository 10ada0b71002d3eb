"""A reload says beforehand what it will do."""

from streamd.config.diff import ConfigChanges, diff
from streamd.config.locate import Place, Places
from streamd.config.model import (
    Config,
    DaemonConfig,
    LocalConfig,
    MetricsConfig,
    PipelineConfig,
    PolicyConfig,
    SourceConfig,
    VaultConfig,
)

A = SourceConfig(paths=("/a",))
B = SourceConfig(paths=("/b",))


def test_sources_are_told_by_name() -> None:
    old = Config(sources={"kept": A, "gone": B, "other": B})
    new = Config(sources={"kept": A, "new": A, "other": B.but(rpo_seconds=2)})
    assert diff(old, new) == ConfigChanges(
        added_sources=("new",), removed_sources=("gone",), changed_sources=("other",)
    )


def test_what_applies_at_once_is_apart_from_what_needs_a_restart() -> None:
    new = Config(
        timezone="UTC",
        vault=VaultConfig(url="file:///other", key_file="/k", auth="sas"),
        local=LocalConfig(),
        daemon=DaemonConfig(state="/s", socket="/c"),
        metrics=MetricsConfig(listen="off"),
        pipeline=PipelineConfig(memory_limit_bytes=64 << 20),
        policies={"gold": PolicyConfig(daily=1)},
    )
    changes = diff(Config(), new)
    assert changes.needs_restart == (
        "daemon.socket",
        "daemon.state",
        "local.path",
        "metrics.listen",
        "pipeline.memory_limit",
        "vault.auth",
        "vault.key_file",
        "vault.url",
    )
    assert changes.applies == (
        "local.keep",
        "local.max_size",
        "local.min_free",
        "local.seed",
        "policies.gold",
        "timezone",
    )
    assert not changes.is_empty


def test_moving_lines_changes_nothing() -> None:
    here = Config(sources={"a": A}).placed(Places({("sources",): Place("f", 1)}))
    there = Config(sources={"a": A}).placed(Places({("sources",): Place("f", 9)}))
    assert diff(here, there).is_empty
    assert here == there
