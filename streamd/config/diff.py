"""What a reload changes: pure, from the old and the new configuration."""

from typing import Final

import msgspec

from streamd.config.model import Config
from streamd.config.table import Table

# what is opened once at start, and would have to be closed under the work in progress
RESTART_KEYS: Final = frozenset({"local.path", "daemon.state", "daemon.socket", "metrics.listen"})
RESTART_TABLES: Final = ("vault.", "pipeline.")  # who we are, where we write, how much memory


class ConfigChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Differences, by name. `applies` and `needs_restart` are dotted keys, without the sources."""

    added_sources: tuple[str, ...] = ()
    removed_sources: tuple[str, ...] = ()
    changed_sources: tuple[str, ...] = ()
    applies: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether nothing changes at all."""
        return not (
            self.added_sources
            or self.removed_sources
            or self.changed_sources
            or self.applies
            or self.needs_restart
        )


def diff(old: Config, new: Config) -> ConfigChanges:
    """Return what a daemon running `old` does when it is given `new`."""
    before, after = old.sources, new.sources
    changed = _changed_keys(old, new)
    return ConfigChanges(
        added_sources=tuple(sorted(after.keys() - before.keys())),
        removed_sources=tuple(sorted(before.keys() - after.keys())),
        changed_sources=tuple(
            sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
        ),
        applies=tuple(key for key in changed if not needs_restart(key)),
        needs_restart=tuple(key for key in changed if needs_restart(key)),
    )


def needs_restart(key: str) -> bool:
    """Say whether a changed value of this dotted key takes effect at the next start only."""
    return key in RESTART_KEYS or key.startswith(RESTART_TABLES)


def _changed_keys(old: Config, new: Config) -> list[str]:
    """Return the dotted keys, sources aside, that do not have the same value in both."""
    before, after = _flat(old), _flat(new)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _flat(config: Config) -> dict[str, object]:
    """Return every value by its dotted TOML key, one level of tables deep."""
    flat: dict[str, object] = {}
    for name, declared in config.settings.items():
        value = getattr(config, name)
        if name == "sources" or value is None:
            continue
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": entry for key, entry in value.items()})
        elif isinstance(value, Table):
            for inner, below in value.settings.items():
                flat[f"{name}.{below.key}"] = getattr(value, inner)
        else:
            flat[declared.key] = value
    return flat
