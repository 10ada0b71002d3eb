"""What the doctor concludes: every line says what is wrong and what to change."""

import pytest

from streamd.policy import diagnosis
from streamd.policy.diagnosis import LIMITS


@pytest.mark.parametrize(
    ("release", "verdict"),
    [("6.1.0-18-amd64", "ok"), ("5.17.0", "ok"), ("5.15.0-100", "warn"), ("odd", "unknown")],
)
def test_an_old_kernel_is_a_warning(release, verdict) -> None:
    assert diagnosis.kernel(release).verdict == verdict


def test_each_capability_is_a_line_of_its_own() -> None:
    checks = diagnosis.capabilities(1 << 21 | 1 << 2, "this user")
    assert {check.name: check.verdict for check in checks} == {
        "cap-dac-read-search": "ok",
        "cap-sys-admin": "ok",
        "cap-lease": "warn",
    }
    assert all(bool(check.remedy) == (check.verdict != "ok") for check in checks)


def test_a_limit_names_the_exact_sysctl_line() -> None:
    key = "fs.fanotify.max_queued_events"
    low = diagnosis.limit(key, 16_384)
    assert low.verdict == "warn"
    assert low.remedy.startswith(f"sysctl -w {key}=262144")
    assert diagnosis.limit(key, LIMITS[key][0]).verdict == "ok"
    assert diagnosis.limit(key, None).verdict == "unknown"


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("fanotify", "ok"), ("inotify", "warn"), ("polling", "warn"), ("nothing", "fail")],
)
def test_what_watches_a_path_is_judged(kind, verdict) -> None:
    check = diagnosis.watcher("web", "/srv", kind, "because")
    assert check.verdict == verdict
    assert bool(check.remedy) == (verdict != "ok")


@pytest.mark.parametrize(
    ("free", "inodes", "verdict", "what"),
    [(0.5, 0.5, "ok", "space"), (0.04, 0.5, "warn", "space"), (0.5, 0.0, "fail", "inodes")],
)
def test_space_and_inodes_are_judged_by_the_scarcer(free, inodes, verdict, what) -> None:
    check = diagnosis.space("daemon.state", "/var", free_share=free, inode_share=inodes)
    assert check.verdict == verdict
    assert what in check.detail


@pytest.mark.parametrize(
    ("skew", "verdict"), [(1.2, "ok"), (-59, "ok"), (90, "warn"), (-90, "warn"), (-400, "fail")]
)
def test_a_clock_that_is_off_is_found(skew, verdict) -> None:
    check = diagnosis.clock(skew, uncertainty_seconds=1.5)
    assert check.verdict == verdict
    assert bool(check.remedy) == (verdict != "ok")
    if abs(skew) > 3:
        assert ("ahead of" in check.detail) == (skew > 0)


@pytest.mark.parametrize(
    ("has", "wanted", "verdict"),
    [
        (True, True, "ok"),
        (False, True, "fail"),
        (True, False, "fail"),
        (False, False, "ok"),
        (True, None, "ok"),
        (False, None, "ok"),
        (None, True, "unknown"),
    ],
)
def test_a_right_is_judged_by_what_is_wanted(has, wanted, verdict) -> None:
    assert diagnosis.right("x", has=has, wanted=wanted, detail="d").verdict == verdict


@pytest.mark.parametrize(
    ("left", "verdict"), [(None, "ok"), (30 * 86_400, "ok"), (86_400, "warn"), (-1, "fail")]
)
def test_a_credential_that_ends_soon_is_a_warning(left, verdict) -> None:
    assert diagnosis.expiry(left).verdict == verdict


def rule(name, prefixes, *, enabled=True, **actions):
    filters = {} if prefixes is None else {"prefixMatch": prefixes}
    return {
        "name": name,
        "enabled": enabled,
        "definition": {"filters": filters, "actions": {"baseBlob": actions}},
    }


def test_lifecycle_rules_that_meet_the_prefix_are_found_in_both_directions() -> None:
    rules = [
        rule("whole account", None, delete={}),
        rule("above", ["backups/"], tierToCool={}),
        rule("below", ["backups/host1/p/"], tierToArchive={}),
        rule("elsewhere", ["backups/host2/", "logs"], delete={}),
        rule("off", ["backups/"], enabled=False, delete={}),
        {"name": "odd", "definition": None},
    ]
    found = diagnosis.touching(rules, "backups", "host1/")
    assert found == ["whole account: delete", "above: tierToCool", "below: tierToArchive", "odd: "]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, "unknown"),
        ([], "ok"),
        (["a: tierToCool"], "ok"),
        (["a: delete"], "fail"),
        (["a: tierToArchive"], "fail"),
    ],
)
def test_a_rule_that_deletes_or_archives_is_a_failure(found, verdict) -> None:
    assert diagnosis.lifecycle(found, "not visible").verdict == verdict
