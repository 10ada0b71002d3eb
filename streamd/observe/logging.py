"""Logs: JSON lines on standard error under systemd, readable lines on a terminal.

One line says one thing: an event name, then facts as keys. Guarantees that a registered secret is
never written, wherever it hides (values, nested values, exceptions), and that no line is huge.
Whoever reads a secret registers it here before using it.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

_VALUE_LENGTH_MAX: Final = 2_000  # a journal line stays readable, and journald does not split it
_TRACE_LENGTH_MAX: Final = 16_000
_REDACTED: Final = "[secret]"
_SECRET_LENGTH_MIN: Final = 4  # shorter ones would blank out half of every line
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_secrets: set[str] = set()


def register_secret(value: str) -> None:
    """Make sure that `value` is never written to a log."""
    if len(value) >= _SECRET_LENGTH_MIN:
        _secrets.add(value)


def forget_secrets() -> None:
    """Forget every registered secret; for tests."""
    _secrets.clear()


class _Setup:
    """What `configure` asked for; carried out when the first line is written.

    A command that ends soon seldom writes one, and need not load what writes it.
    """

    def __init__(self, stream: TextIO | None, level: int, *, as_json: bool) -> None:
        self.level = level
        self._stream = stream
        self._as_json = as_json
        self._handler: logging.Handler | None = None

    def carry_out(self) -> logging.Handler:
        """Set up what writes lines; return the handler for those of libraries."""
        if self._handler is None:
            from streamd.observe import rendering

            self._handler = rendering.setup(
                self._stream, self.level, [redact, truncate], as_json=self._as_json
            )
        return self._handler


_setup: list[_Setup] = []  # none before `configure`, then the newest


def configure(
    *, json: bool | None = None, level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up logging for the process, again if need be.

    `json` None chooses: JSON under systemd or into a pipe, readable lines on a terminal. `stream`
    None is standard error, whatever that is when a line is written. Raises KeyError for an unknown
    level.
    """
    terminal = sys.stderr if stream is None else stream
    as_json = _wants_json(terminal) if json is None else json
    _setup[:] = [_Setup(stream, _LEVELS[level], as_json=as_json)]
    _configure_foreign(_setup[0])


class _Logger:
    """A logger that loads what writes lines when there is one to write."""

    __slots__ = ("_bound", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._bound: Any = None

    def __getattr__(self, method: str) -> Any:
        if _setup and _LEVELS.get(method, logging.CRITICAL) < _setup[0].level:
            return _unwritten
        if self._bound is None:
            from streamd.observe import rendering

            self._bound = rendering.get_logger(self._name)
        if _setup:
            _setup[0].carry_out()
        return getattr(self._bound, method)


def _unwritten(*_: object, **__: object) -> None:
    """Take a line below the level."""


def get_logger(name: str) -> Any:
    """Return a logger (debug, info, warning, error) whose lines carry `name` as `component`."""
    return _Logger(name)


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Replace every registered secret in `event`, however deep; a structlog processor."""
    if not _secrets:
        return event
    return {_clean(str(key)): _clean(value) for key, value in event.items()}


def truncate(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Cut long values; a structlog processor."""
    return {key: _short(key, value) for key, value in event.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else _text(value)
    for secret in _secrets:
        text = text.replace(secret, _REDACTED)
    return text


def _short(key: str, value: Any) -> Any:
    limit = _TRACE_LENGTH_MAX if key == "exception" else _VALUE_LENGTH_MAX
    if isinstance(value, bytes):
        value = _text(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and len(repr(value)) > limit:
        value = repr(value)
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]}… ({len(value)} characters)"
    return value


def _text(value: object) -> str:
    """Return bytes as the text they most likely are, and anything else by its repr."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return repr(value)


def _wants_json(stream: TextIO) -> bool:
    return "JOURNAL_STREAM" in os.environ or not stream.isatty()


class _ForeignHandler(logging.Handler):
    """Takes what libraries log; `configure` puts it in place, and knows it again to replace it."""

    def __init__(self, setup: _Setup) -> None:
        super().__init__()
        self._setup = setup

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` as our own lines are written."""
        self._setup.carry_out().handle(record)


def _configure_foreign(setup: _Setup) -> None:
    """Let what libraries log, from warnings up, come out in the same form."""
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _ForeignHandler)]:
        root.removeHandler(old)
    root.addHandler(_ForeignHandler(setup))
    root.setLevel(logging.WARNING)
