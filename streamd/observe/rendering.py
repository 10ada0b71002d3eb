"""How a line of the log is written: as JSON, or readable on a terminal.

Apart from `observe.logging`, which every module imports, because structlog takes its time to load.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

# structlog would load rich, a tenth of the time that a command takes to start, for the tracebacks
# of a console that we do not use.
_HIDDEN: Final = [name for name in ("rich",) if name not in sys.modules]
sys.modules.update(dict.fromkeys(_HIDDEN, None))  # type: ignore[arg-type]  # None: cannot be imported
import structlog  # noqa: E402

for _name in _HIDDEN:
    del sys.modules[_name]


def setup(
    stream: TextIO | None, level: int, cleaning: Sequence[Any], *, as_json: bool
) -> logging.Handler:
    """Let loggers write to `stream` (None: standard error) from `level` up, cleaned.

    Returns the handler that writes what libraries log in the same form.
    """
    terminal = sys.stderr if stream is None else stream
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
        *cleaning,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = _StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    return handler


def get_logger(name: str) -> Any:
    """Return what writes lines that carry `name` as `component`."""
    return structlog.get_logger(component=name)


class _StreamHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, or to what standard error is at the moment."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._follows_stderr = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` to the stream of this moment."""
        if self._follows_stderr:
            self.stream = sys.stderr
        super().emit(record)
