"""T on the command line means an instant, exactly."""

import datetime as dt
import zoneinfo

import pytest

from streamd.cli.main import main
from streamd.cli.times import LATEST_US, format_rfc3339, format_time, hold_seconds, parse_time
from streamd.errors import ExitCode, UsageInvalid

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOON_US = int(dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds_after_noon"),
    [
        ("now", 0),
        ("-2h", -7200),
        ("now-2h", -7200),
        ("-1h30m", -5400),
        ("2026-11-20 14:03", 3780),
        ("2026-11-20T14:03:07", 3787),
        ("2026-11-20T12:00:00Z", 0),
        ("2026-11-20T12:00:00.25+01:00", -3599.75),
        ("2026-11-20", -46_800),
    ],
)
def test_a_time_is_an_instant(text: str, seconds_after_noon: float) -> None:
    expected = NOON_US + round(seconds_after_noon * 1_000_000)
    assert parse_time(text, now_us=NOON_US, zone=BERLIN) == expected


def test_latest_is_later_than_everything() -> None:
    assert parse_time("latest", now_us=NOON_US, zone=BERLIN) == LATEST_US > NOON_US


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-2", "-h", "2026-13-01", "+2h", "14:03", "-2h ago"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageInvalid, match="is no time"):
        parse_time(text, now_us=NOON_US, zone=BERLIN)


def test_a_printed_time_says_its_zone() -> None:
    assert format_time(NOON_US + 7_250_000, zone=BERLIN) == "2026-11-20 13:00:07 CET"
    assert format_time(NOON_US, zone=dt.UTC) == "2026-11-20 12:00:00 UTC"
    assert format_rfc3339(NOON_US + 250_000) == "2026-11-20T12:00:00.250000Z"


def test_an_hour_that_happens_twice_means_the_first() -> None:
    twice = parse_time("2026-10-25 02:30", now_us=0, zone=BERLIN)
    assert format_time(twice, zone=BERLIN).endswith("02:30:00 CEST")


@pytest.mark.parametrize("hold", ["a year", "-7d", "7", "", "999999999999d", "1d 1h"])
@pytest.mark.parametrize(
    "command",
    [["capture", "--name", "before", "--hold"], ["retention", "release", "web", "--hold"]],
)
def test_what_is_no_hold_is_a_usage_error_that_names_the_option(
    tmp_path, capsys, command, hold
) -> None:
    if command[0] == "capture" and not hold:
        return  # none is the default
    config = tmp_path / "streamd.toml"
    config.write_text(
        f'[vault]\nurl = "file://{tmp_path}/v"\nkey_file = "{tmp_path}/k"\n'
        f'[daemon]\nstate = "{tmp_path}/s"\nsocket = "{tmp_path}/sock"\n'
        '[sources.web]\npaths = ["/srv/web"]\n'
    )
    assert main([*command, hold, "-c", str(config)]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "--hold" in told
    assert "usage-invalid" in told


def test_a_hold_is_a_number_of_seconds() -> None:
    assert hold_seconds("365d") == 365 * 86_400
    assert hold_seconds("0s") == 0
