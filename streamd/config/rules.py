"""What several parts of a configuration must satisfy together.

Pure: looks at values only, so that a configuration can be checked on another machine than its
own. What must be true on this machine (paths exist, secrets are private) is in `config.host`.
"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from streamd.config.locate import KeyPath
from streamd.config.model import Config
from streamd.config.table import Problem, nearest

# for each way to authenticate: the secrets of which one must be named
_SECRETS: Final = {
    "sas": ("sas",),
    "shared-key": ("shared_key",),
    "connection-string": ("connection_string",),
    "service-principal": ("certificate", "client_secret"),
}
_SECRET_KINDS: Final = (
    "sas",
    "shared_key",
    "connection_string",
    "client_secret",
    "proxy_password",
)


_ONLY_COMMAND: Final = frozenset(
    {"command", "every_seconds", "timeout_seconds", "min_size_bytes", "file_name"}
)
_ONLY_FILES: Final = frozenset(
    {
        "paths",
        "exclude",
        "one_file_system",
        "exclude_if_present",
        "max_file_size_bytes",
        "sqlite",
    }
)
# for each kind of source: the key it needs, and those without a meaning
_KEYS: Final = {"filesystem": ("paths", _ONLY_COMMAND), "command": ("command", _ONLY_FILES)}


def check(config: Config) -> tuple[Problem, ...]:
    """Return every rule that `config` breaks; empty if it can be used."""
    rules = (
        _kinds_are_complete,
        _policies_exist,
        _paths_are_apart,
        _own_places_are_apart,
        _vault_is_complete,
    )
    return tuple(problem for rule in rules for problem in rule(config))


def contains(outer: str, inner: str) -> bool:
    """Return whether the path `inner` is `outer` or lies below it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def own_directories(config: Config) -> dict[KeyPath, str]:
    """Return the directories that streamd itself writes into, by their key."""
    places: dict[KeyPath, str] = {("daemon", "state"): config.daemon.state}
    if config.local is not None:
        places["local", "path"] = config.local.path
    if config.vault.directory is not None:
        places["vault", "url"] = config.vault.directory
    return places


def _kinds_are_complete(config: Config) -> Iterator[Problem]:
    """Each kind of source has the keys it needs and none of those it has no use for."""
    for name, source in config.sources.items():
        key = ("sources", name)
        needed, useless = _KEYS[source.kind]
        if not getattr(source, needed):
            given = needed in source.given
            yield Problem((*key, needed), "must not be empty" if given else "is required")
        for attribute in sorted(source.given & useless):
            declared = source.settings[attribute]
            if getattr(source, attribute) == declared.default:  # as `config show` prints it
                continue
            message = f'has no meaning for a source of kind "{source.kind}"'
            yield Problem((*key, declared.key), message)
        for hook in ("command", "before_capture", "after_capture"):
            words = getattr(source, hook)
            if words and not _is_program(words[0]):
                message = f'"{words[0]}" is neither an absolute path nor the name of a program'
                yield Problem((*key, hook), message)


def _is_program(word: str) -> bool:
    return word.startswith("/") or ("/" not in word and word not in {"", ".", ".."})


def _policies_exist(config: Config) -> Iterator[Problem]:
    known = ["default", *config.policies]
    for name, source in config.sources.items():
        if source.policy not in known:
            key = ("sources", name, "policy")
            message = f'there is no policy "{source.policy}"'
            yield Problem(key, message, nearest(source.policy, known))


def _paths_are_apart(config: Config) -> Iterator[Problem]:
    seen: list[tuple[str, str]] = []
    for name, source in config.sources.items():
        for path in source.paths:
            for other_name, other in seen:
                if contains(other, path) or contains(path, other):
                    yield Problem(
                        ("sources", name, "paths"),
                        f'"{path}" is protected twice: source {other_name} has "{other}"',
                    )
            seen.append((name, path))


def _own_places_are_apart(config: Config) -> Iterator[Problem]:
    for key, own in own_directories(config).items():
        for name, source in config.sources.items():
            for path in source.paths:
                if contains(path, own) or contains(own, path):
                    where = ".".join(map(str, key))
                    yield Problem(
                        ("sources", name, "paths"),
                        f'"{path}" and streamd\'s own "{own}" ({where}) contain one another',
                    )
    vault = config.vault.directory
    if vault is not None and config.local is not None and vault == config.local.path:
        yield Problem(("local", "path"), "the vault itself is there; leave [local] out")


def _vault_is_complete(config: Config) -> Iterator[Problem]:
    vault = config.vault
    if vault.directory is None and config.local is None:
        yield Problem(("local",), "a vault in a container needs a [local] table for its spool")
    needed = _SECRETS.get(vault.auth, ())
    if needed and not any(vault.named_secret(kind) for kind in needed):
        names = " or ".join(f"{kind}_file" for kind in needed)
        yield Problem(("vault", "auth"), f'"{vault.auth}" needs {names}')
    if vault.auth == "service-principal":
        for name in ("client_id", "tenant_id"):
            if not getattr(vault, name):
                yield Problem(("vault", "auth"), f'"service-principal" needs {name}')
    if vault.named_secret("proxy_password") and not urlsplit(vault.proxy or "").username:
        yield Problem(("vault", "proxy"), "a password needs a user: http://USER@HOST:PORT")
    for kind in _SECRET_KINDS:
        secret = vault.named_secret(kind)
        if secret is not None and secret.file and secret.credential:
            key = ("vault", f"{kind}_credential")
            yield Problem(key, f"{kind}_file is given too: choose one of them")
