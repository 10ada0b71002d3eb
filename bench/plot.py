"""Plain SVG: bars of the ratios with a line for each goal, and curves of what grows with what."""

import math
from dataclasses import dataclass

from bench.table import GOALS, OURS, Row, ratio

_WIDTH, _BAR, _LEFT = 760, 22, 190
_SCALE = 420  # pixels for the time of the faster peer


def bars(all_rows: list[Row]) -> str:
    """Return wall and processor time of streamd as shares of the best peer's."""
    lines: list[str] = []
    y = 40
    for row in all_rows:
        if row.tool != OURS:
            continue
        goals = GOALS.get((row.dataset, row.work), (None, None, None))
        for fact, name, goal in (
            ("wall_seconds", "wall", goals[0]),
            ("cpu_seconds", "processor", goals[1]),
        ):
            share = ratio(row, all_rows, fact)
            if share is None:
                continue
            good = goal is None or share <= goal
            length = min(share, 1.3) * _SCALE
            label = f"{row.dataset} {row.work}, {name}"
            lines.append(f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{label}</text>')
            lines.append(
                f'<rect x="{_LEFT}" y="{y + 3}" width="{length:.1f}" height="{_BAR - 6}"'
                f' fill="{"#2a7f62" if good else "#c0552b"}"/>'
            )
            lines.append(f'<text x="{_LEFT + length + 5:.1f}" y="{y + 15}">{share:.2f}</text>')
            if goal is not None:
                at = _LEFT + goal * _SCALE
                lines.append(
                    f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y}" y2="{y + _BAR}" stroke="#222"/>'
                )
            y += _BAR
    peer = _LEFT + _SCALE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 20}"'
        ' font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT}" y="20">share of the best peer (right line: 1.0); black: the goal</text>'
        f'<line x1="{peer}" x2="{peer}" y1="30" y2="{y}" stroke="#999" stroke-dasharray="4"/>'
        + "".join(lines)
        + "</svg>\n"
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """What one figure is at several sizes."""

    name: str
    points: tuple[tuple[float, float], ...]


_CHART, _LINE = (
    (560, 320),
    ("#2a7f62", "#c0552b", "#2b5fa8", "#8a6d1a", "#7a3b8f", "#444", "#0a8a9a"),
)


def curves(title: str, lines: list[Curve]) -> str:
    """Return a chart, both axes logarithmic: what is flat in it costs the same at every size."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if y > 0]
    left, right = math.log10(min(xs)), math.log10(max(xs)) + 1e-9
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9)
    width, height = _CHART

    def at(x: float, y: float) -> str:
        across = (math.log10(x) - left) / (right - left) * width + 70
        up = (math.log10(max(y, 10**low)) - low) / (high - low) * height
        return f"{across:.1f},{height + 40 - up:.1f}"

    parts = [f'<text x="70" y="22">{title}</text>']
    for power in range(low, high + 1):
        y = at(min(xs), 10.0**power).partition(",")[2]
        parts.append(f'<line x1="70" x2="{70 + width}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(
            f'<text x="62" y="{float(y) + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for x in sorted(set(xs)):
        across = at(x, 10.0**low).partition(",")[0]
        parts.append(f'<text x="{across}" y="{height + 60}" text-anchor="middle">{x:,.0f}</text>')
    for number, line in enumerate(lines):
        colour = _LINE[number % len(_LINE)]
        points = " ".join(at(x, y) for x, y in line.points)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        y = 40 + 18 * number
        parts.append(f'<text x="{90 + width}" y="{y + 4}" fill="{colour}">{line.name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 400}" height="{height + 75}"'
        ' font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"
    )
