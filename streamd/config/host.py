"""What a configuration must satisfy on this host, and the secrets it names.

Apart from `config.load`, because a restore on another machine reads the same configuration where
the protected paths do not exist. Nothing here is called by pure code, and no secret is printed.
"""

import os
import stat
import threading
from collections.abc import Collection, Iterator
from typing import Final

from streamd.config.load import report
from streamd.config.model import Config, SecretSource
from streamd.config.programs import ProgramUnusable, find_program
from streamd.config.rules import contains, own_directories
from streamd.config.table import Problem
from streamd.errors import ConfigInvalid, SecretUnreadable

_ANSWER_SECONDS: Final = 5.0  # a file system that takes longer hangs
_SECRET_SIZE_MAX = 64 << 10  # a certificate with its chain is far below; a mistake is not
_SECRET_KINDS = (
    "sas",
    "shared_key",
    "connection_string",
    "client_secret",
    "certificate",
    "proxy_password",
)


class SecretText:
    """A secret that does not show itself where it is printed."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the secret itself."""
        return self._text

    def __repr__(self) -> str:
        return "SecretText('**********')"


def check_host(config: Config) -> None:
    """Raise ConfigInvalid with everything on this host that does not fit `config`.

    Every path of every source exists, no source reaches streamd's own directories through a
    symbolic link, every secret is readable by streamd and by nobody else, and no program that is
    to be run could be replaced by others.
    """
    problems = (*_paths(config), *_programs(config), *_secrets(config))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = report(problems, config.places)
        raise ConfigInvalid(f"{count} with the configuration on this host", problems=listed)


def read_secret(source: SecretSource) -> SecretText:
    """Return the secret without its final newline. Raises SecretUnreadable."""
    path = secret_path(source)
    try:
        with open(path, "rb") as stream:
            _check_private(os.fstat(stream.fileno()), path)
            raw = stream.read(_SECRET_SIZE_MAX + 1)
        text = raw.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}", path=path) from error
    except UnicodeDecodeError:
        # the exception's own text would quote the secret
        raise SecretUnreadable(f"{path}: not UTF-8 text", path=path) from None
    if not text or len(raw) > _SECRET_SIZE_MAX:
        raise SecretUnreadable(f"{path}: {'too long' if text else 'empty'}", path=path)
    return SecretText(text)


def secret_path(source: SecretSource) -> str:
    """Return the file of a secret. Raises SecretUnreadable if there are no credentials."""
    if source.file is not None:
        return source.file
    assert source.credential is not None, "a secret has a file or a credential"
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        what = f"{source.key}_credential: systemd passed no credentials to this process"
        raise SecretUnreadable(what, path=source.credential)
    return os.path.join(directory, source.credential)


def _check_private(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretUnreadable(f"{path}: not a regular file", path=path)
    if status.st_mode & 0o007:
        mode = stat.S_IMODE(status.st_mode)
        raise SecretUnreadable(f"{path}: readable by others (mode {mode:04o})", path=path)


def _secrets(config: Config) -> Iterator[Problem]:
    for kind in _SECRET_KINDS:
        source = config.vault.named_secret(kind)
        if source is None:
            continue
        try:
            read_secret(source)
        except SecretUnreadable as error:
            yield Problem(
                ("vault", f"{kind}_{'file' if source.file else 'credential'}"), str(error)
            )
    if config.vault.ca_file is not None and not os.access(config.vault.ca_file, os.R_OK):
        yield Problem(("vault", "ca_file"), f'"{config.vault.ca_file}" cannot be read')
    key_file = config.vault.key_file
    try:
        _check_private(os.stat(key_file), key_file)
    except FileNotFoundError:
        pass  # `streamd init` makes it, and whoever needs it says so
    except OSError as error:
        yield Problem(("vault", "key_file"), f"{key_file}: {error.strerror}")
    except SecretUnreadable as error:
        yield Problem(("vault", "key_file"), str(error))


def _programs(config: Config) -> Iterator[Problem]:
    for name, source in config.sources.items():
        for key in ("command", "before_capture", "after_capture"):
            words = getattr(source, key)
            if not words:
                continue
            try:
                find_program(words[0])
            except ProgramUnusable as error:
                yield Problem(("sources", name, key), str(error))


def _paths(config: Config) -> Iterator[Problem]:
    own = {key: os.path.realpath(path) for key, path in own_directories(config).items()}
    for name, source in config.sources.items():
        for number, path in enumerate(source.paths):
            key = ("sources", name, "paths", number)
            for text in _of_path(path, own.values()):
                yield Problem(key, text)


def _of_path(path: str, own: Collection[str]) -> list[str]:
    """Return what is wrong with a path of a source.

    Nothing, if its file system does not answer: that may pass, and must not keep what else is to
    be protected from it.
    """
    found: list[str] = []

    def look() -> None:
        if not os.path.lexists(path):
            found.append(f'"{path}" does not exist')
            return
        real = os.path.realpath(path)
        found.extend(
            f'"{path}" and streamd\'s own "{place}" contain one another'
            for place in own
            if contains(real, place) or contains(place, real)
        )

    looking = threading.Thread(target=look, name="look", daemon=True)
    looking.start()
    looking.join(_ANSWER_SECONDS)
    return [] if looking.is_alive() else found
