"""Figures are judged by their goals, and a report replaces only what stands between its marks."""

import pytest

from bench.figures import Figure, missed, render
from bench.plot import Curve, curves
from bench.report import MARKS, Report
from bench.table import Sample


def test_a_figure_is_judged_by_its_goal_in_both_directions() -> None:
    assert Figure("idle", "RSS", 210, "MiB", 200).is_missed
    assert not Figure("idle", "RSS", 200, "MiB", 200).is_missed
    assert Figure("sink", "rate", 0.7, "", 0.8, at_least=True).is_missed
    assert not Figure("sink", "rate", 0.9, "", 0.8, at_least=True).is_missed
    assert not Figure("idle", "RSS", 210, "MiB").is_missed


def test_nothing_at_all_misses_a_goal_of_at_least_something() -> None:
    assert Figure("sink", "rate", 0.0, "", 0.8, at_least=True).is_missed


def test_a_missed_figure_is_told_with_its_goal() -> None:
    figures = [Figure("idle", "RSS", 210, "MiB", 200), Figure("idle", "CPU", 0.1, "%", 0.5)]
    assert missed(figures) == ["idle, RSS: 210 MiB, goal at most 200"]
    assert "| idle | RSS | 210 MiB | ≤ 200 MiB | 1.05 | **missed** |" in render(figures)
    assert "| idle | CPU | 0.1 % | ≤ 0.5 % | 0.20 | met |" in render(figures)


@pytest.fixture
def report() -> Report:
    made = Report({"streamd": "streamd 1", "restic": "restic 2"}, quick=True)
    made.samples = [
        Sample("SMALL", "first", tool, 0, wall, wall, 100, 10)
        for tool, wall in (("streamd", 5.0), ("restic", 10.0))
    ]
    made.figures = [Figure("daemon", "CPU per change", 300, "µs")]
    made.failures = ["TLS: no port"]
    return made


def test_a_report_counts_goals_met_and_missed_and_tells_failures(report) -> None:
    text = report.text()
    assert (
        "Of 4 goals 2 are met, 2 missed." in text
    )  # wall missed, CPU 0.5 met, size missed, RSS met
    assert "* Failed: TLS: no port" in text
    assert "| daemon | CPU per change | 300 µs |" in text
    assert [one.is_missed for one in report.judged] == [True, False, True, False]


def test_a_page_keeps_what_is_around_the_marks(report, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    report.put_into(page)
    first = page.read_text()
    report.put_into(page)
    assert page.read_text() == first
    assert first.startswith(f"before\n{MARKS[0]}\nstreamd 1, restic 2, ")
    assert first.endswith(f"\n{MARKS[1]}\nafter\n")
    assert "old" not in first


def test_a_page_without_marks_is_refused(report, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match="lacks the marks"):
        report.put_into(page)
    assert page.read_text() == "text"


def test_curves_show_every_line_on_logarithmic_axes() -> None:
    drawing = curves("by size", [Curve("a", ((1e4, 1.0), (1e6, 1.2))), Curve("b", ((1e4, 30.0),))])
    assert drawing.count("<polyline") == 2
    assert ">10,000<" in drawing
