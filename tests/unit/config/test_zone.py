"""Wall times are in the configured zone, else in the system's."""

import datetime as dt
import zoneinfo

import pytest

from streamd.config.zone import zone_of


def test_a_name_is_an_iana_zone() -> None:
    assert zone_of("UTC") is dt.UTC
    assert zone_of("Europe/Berlin") == zoneinfo.ZoneInfo("Europe/Berlin")


def test_no_name_is_the_systems_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert zone_of("") == zoneinfo.ZoneInfo("Asia/Tokyo")
    monkeypatch.setenv("TZ", "not a zone")
    assert zone_of("") is dt.UTC
    monkeypatch.delenv("TZ")
    assert zone_of("") is not None
