"""The benchmark's table compares with the faster peer, and says which goals are missed."""

from bench.table import Sample, missed, ratio, render, rows


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
    assert [line.split(":")[0] for line in missed(table)] == ["SMALL first wall_seconds"]
    assert "0.50 (≤ 0.33) !" in render(table)


def test_a_goal_that_is_met_is_not() -> None:
    table = rows([sample("streamd", 3), sample("restic", 10)])
    assert missed(table) == []
    assert "0.30 (≤ 0.33) |" in render(table)
