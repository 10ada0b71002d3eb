"""Take the plain values of a command line as they are, not by the library that typer converts with.

typer hands every value to pydantic, whose import is a fifth of the time that a command takes to
start. A text, a flag, a number in digits and a word of a choice are what they are without it.
Whatever is not exactly that goes typer's way, wrong values and what is said of them included; so
does everything where typer is another one than this knows.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, get_args, get_origin

OTHER: Final = object()


def install() -> None:
    """Let typer do so, once."""
    from typer import core

    build = getattr(core, "build_runtime_param", None)
    if build is not None and not isinstance(build, _Builder):
        core.build_runtime_param = _Builder(build)  # type: ignore[attr-defined, assignment, unused-ignore]


class _Builder:
    """Makes what converts the values of a parameter."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self._build = build

    def __call__(self, descriptor: Any) -> Any:
        return _Plain(descriptor, self._build)


class _Plain:
    """Converts the values of one parameter."""

    def __init__(self, descriptor: Any, build: Callable[[Any], Any]) -> None:
        self._descriptor = descriptor
        self._build = build

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value for the command's function."""
        descriptor = self._descriptor
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        special = (getattr(descriptor.parameter_info, name, None) for name in _SPECIAL)
        if not any(each is not None for each in special):
            plain = taken(descriptor.annotation, value)
            if plain is not OTHER:
                return plain
        return self._build(descriptor).coerce(value, param, ctx)


_SPECIAL: Final = ("parser", "click_type", "min", "max", "formats", "mode")  # bounds and the like


def taken(kind: Any, value: Any) -> Any:
    """Return `value` as a `kind`, or a mark that it is not as plain as that."""
    if kind is str or kind is bool:
        return value if type(value) is kind else OTHER
    if kind is int:
        is_plain = type(value) is int or (
            type(value) is str and value.isascii() and value.isdigit()
        )
        return int(value) if is_plain else OTHER
    if isinstance(kind, type) and issubclass(kind, Enum):
        if isinstance(value, kind):
            return value
        return next((each for each in kind if each.value == value), OTHER)
    if get_origin(kind) is list and get_args(kind) == (str,) and isinstance(value, list | tuple):
        return list(value) if all(type(each) is str for each in value) else OTHER
    return OTHER
