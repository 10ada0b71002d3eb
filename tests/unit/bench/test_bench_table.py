"""The benchmark's table compares with the faster peer, and says which goals are missed."""

from dataclasses import asdict

from bench import datasets
from bench.plot import bars
from bench.table import Sample, goals_of, ratio, regressions, render, rows


def sample(tool: str, wall: float, *, number: int = 0, work: str = "first") -> Sample:
    return Sample("SMALL", work, tool, number, wall, wall * 1.5, 100, int(wall * 1e6))


def test_a_row_is_the_median_of_its_rounds() -> None:
    (row,) = rows(sample("restic", wall, number=int(wall)) for wall in (1, 2, 9))
    assert (row.runs, row.wall_seconds, row.cpu_seconds, row.stored_mb) == (3, 2, 3, 2)


def test_the_ratio_is_against_the_faster_peer() -> None:
    table = rows([sample("streamd", 2), sample("restic", 10), sample("borg", 5)])
    assert ratio(table[0], table, "wall_seconds") == 2 / 5


def test_only_our_rows_have_a_ratio() -> None:
    table = rows([sample("restic", 10), sample("borg", 5)])
    assert ratio(table[0], table, "wall_seconds") is None


def test_without_a_peer_there_is_no_ratio() -> None:
    table = rows([sample("streamd", 10), sample("borg", 5, work="restore")])
    assert ratio(table[0], table, "wall_seconds") is None


def test_a_missed_goal_is_named_and_marked() -> None:
    table = rows([sample("streamd", 5), sample("restic", 10)])
    assert [one.what.split(",")[0] for one in goals_of(table) if one.is_missed] == ["wall"]
    assert "0.50 (≤ 0.33) !" in render(table)


def test_a_goal_that_is_met_is_not() -> None:
    table = rows([sample("streamd", 3), sample("restic", 10)])
    assert not any(one.is_missed for one in goals_of(table))
    assert "0.30 (≤ 0.33) |" in render(table)


def test_a_ratio_that_got_worse_is_named_and_a_little_noise_is_not() -> None:
    before = rows([sample("streamd", 20), sample("restic", 100)])
    baseline = {"rows": [asdict(row) for row in before]}
    noisy = rows([sample("streamd", 11), sample("restic", 50)])
    slower = rows([sample("streamd", 12), sample("restic", 50)])
    assert regressions(noisy, baseline) == []
    assert [line.split(":")[0] for line in regressions(slower, baseline)] == [
        "SMALL first wall_seconds",
        "SMALL first cpu_seconds",
        "SMALL first stored_mb",
    ]


def test_a_row_that_is_over_at_once_is_not_compared_by_time() -> None:
    before = rows([sample("streamd", 0.1), sample("restic", 1)])
    now = rows([sample("streamd", 0.15), sample("restic", 1)])
    baseline = {"rows": [asdict(row) for row in before]}
    assert [line.split()[2] for line in regressions(now, baseline)] == ["stored_mb:"]


def test_the_plot_shows_each_of_our_works() -> None:
    drawing = bars(rows([sample("streamd", 2), sample("restic", 10), sample("borg", 5)]))
    assert drawing.count("<rect") == 3  # the ground, wall, processor
    assert "SMALL first, wall" in drawing


def test_data_comes_back_as_it_was(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "MIB", 1 << 10)
    data = datasets.make("BIG", tmp_path, quick=True)
    before = (data.path / "big").read_bytes()
    data.change(data.path)
    after = (data.path / "big").read_bytes()
    assert len(after) == len(before) + (1 << 10)
    assert after.startswith(before[: len(before) // 2])
    data.undo(data.path)
    assert (data.path / "big").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big-quick", "big-quick.json"]
