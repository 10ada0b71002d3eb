"""How facts are printed for people: sizes, spans of time, names that are bytes, tables.

Pure functions from values to text. Colours and progress bars are the terminal's business and are
made where they are shown.
"""

import sys
from collections.abc import Sequence
from typing import Final

_KIBI: Final = 1024
_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS: Final = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
_SHORT: Final = 10
_PIPE_WIDTH: Final = 10_000  # nothing is cut off where a program reads


def size(size_bytes: float) -> str:
    """Return for example `1.5 GiB`."""
    amount = float(size_bytes)
    for unit in _SIZE_UNITS:
        if abs(amount) < _KIBI or unit == _SIZE_UNITS[-1]:
            break
        amount /= _KIBI
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def rate(bytes_per_second: float) -> str:
    """Return for example `1.5 MiB/s`."""
    return f"{size(bytes_per_second)}/s"


def count(number: int) -> str:
    """Return for example `1,234,567`."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """Return for example `0.3 s`, `12 s`, `2 min 5 s` or `3 d 4 h`: two units at most."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    whole = round(seconds)
    if whole < _SHORT:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    for large, large_unit, small, small_unit in _SPANS:
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {large_unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def ago(then_us: int, now_us: int) -> str:
    """Return for example `2 min 5 s ago`."""
    return f"{duration((now_us - then_us) / 1_000_000)} ago"


def lag(seconds: float | None) -> str:
    """Return for example `lag 3 s`; None is a lag that nobody knows."""
    return "lag unknown" if seconds is None else f"lag {duration(seconds)}"


def name(raw: bytes) -> str:
    r"""Return a name as text that is safe on a terminal and in JSON.

    Printable characters stay; everything else, a backslash included, becomes `\xNN` or `\\`, so
    that different names never look the same.
    """
    decoded = raw.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return "".join(char if char.isprintable() else _escaped(char) for char in decoded)


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def mode(st_mode: int) -> str:
    """Return for example `-rw-r--r--`."""
    import stat

    return stat.filemode(st_mode)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Return aligned columns under bold headers; `right` has an `r` at columns of numbers."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = StringIO()
    terminal = sys.stdout.isatty()
    console = Console(
        file=out,
        force_terminal=terminal,
        width=None if terminal else _PIPE_WIDTH,
        highlight=False,
        emoji=False,
    )
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, header in enumerate(headers):
        justify = "right" if right[number : number + 1] == "r" else "left"
        grid.add_column(Text(header), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
