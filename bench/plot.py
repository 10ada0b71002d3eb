"""A plain SVG of the ratios: one bar for each work, one line for the goal."""

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
