"""Programs that the configuration names: where they are, and whether they are safe to run.

A program that streamd runs has streamd's rights, so nobody but root and streamd's own user may be
able to put another one in its place: neither the file, nor a directory on the way to it, may be
theirs or writable for them. A directory like /tmp, in which nobody may replace what is not his,
is no danger. Looked at when the configuration is checked, and again before each run.
"""

import os
import stat
from typing import Final

SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class ProgramUnusable(Exception):
    """A program is not there, or not safe to run; the text says which and why."""


def find_program(word: str) -> str:
    """Return the path of a program, as it is to be run. Raises ProgramUnusable."""
    for candidate in _candidates(word):
        if os.path.isfile(candidate):
            path = os.path.realpath(candidate)
            _check(path)
            for parent in _directories(candidate):  # a link on the way can be turned, too
                _check_place(parent)
            if not os.access(path, os.X_OK):
                raise ProgramUnusable(f'"{path}" may not be executed')
            return candidate  # not resolved: some programs look at their name
    where = "" if "/" in word else f" in {SEARCH_PATH}"
    raise ProgramUnusable(f'there is no program "{word}"{where}')


def _candidates(word: str) -> list[str]:
    if word.startswith("/"):
        return [word]
    return [os.path.join(directory, word) for directory in SEARCH_PATH.split(":")]


def _directories(path: str) -> list[str]:
    found = []
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    return found


def _check(path: str) -> None:
    _check_place(path)
    for directory in _directories(path):
        _check_place(directory)


def _check_place(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ProgramUnusable(f'"{path}": {error.strerror}') from error
    if status.st_uid not in {0, os.geteuid()}:
        raise ProgramUnusable(f'"{path}" belongs to user {status.st_uid}, who could replace it')
    is_shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS_WRITE and not is_shared:
        mode = stat.S_IMODE(status.st_mode)
        raise ProgramUnusable(f'"{path}" is writable by others (mode {mode:04o})')
