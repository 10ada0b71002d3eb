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

# structlog would load rich, a tenth of the time that a command takes to start, for the tracebacks
# of a console that we do not use.
_HIDDEN: Final = [name for name in ("rich",) if name not in sys.modules]
sys.modules.update(dict.fromkeys(_HIDDEN, None))  # type: ignore[arg-type]  # None: cannot be imported
import structlog  # noqa: E402

for _name in _HIDDEN:
    del sys.modules[_name]

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
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=terminal.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
        truncate,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    _configure_foreign(shared, renderer, stream)


def get_logger(name: str) -> Any:
    """Return a logger (debug, info, warning, error) whose lines carry `name` as `component`."""
    return structlog.get_logger(component=name)


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


class _ForeignHandler(logging.StreamHandler[TextIO]):
    """The handler that `configure` puts in place, and knows again to replace it."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._follows_stderr = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` to the stream of this moment."""
        if self._follows_stderr:
            self.stream = sys.stderr
        super().emit(record)


def _configure_foreign(shared: list[Any], renderer: Any, stream: TextIO | None) -> None:
    """Let what libraries log, from warnings up, come out in the same form."""
    handler = _ForeignHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _ForeignHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
