"""What `streamd doctor` concludes from what it saw: pure judgements, each with its remedy.

A check looks at one thing by itself, so that whoever reads the list knows what to change. `fail`
means that protection or restore does not work, or not as it is meant to; `warn` that it is at risk;
`unknown` that it could not be looked at, and why.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

Verdict = Literal["ok", "warn", "fail", "unknown"]

SKEW_WARN_SECONDS: Final = 60.0
SKEW_FAIL_SECONDS: Final = 300.0  # from here on the service refuses signatures, tokens, SAS
EXPIRY_WARN_SECONDS: Final = 7 * 86_400.0
KERNEL_MIN: Final = (5, 17)  # fanotify with names and targets; older ones watch with inotify
FREE_SHARE_MIN: Final = 0.05
# fs.* keys of sysctl: the least that does well, and what happens below it
LIMITS: Final[Mapping[str, tuple[int, str]]] = {
    "fs.fanotify.max_queued_events": (262_144, "a burst of changes overflows the queue: a rescan"),
    "fs.inotify.max_queued_events": (262_144, "a burst of changes overflows the queue: a rescan"),
    "fs.inotify.max_user_watches": (1_048_576, "directories beyond it are polled"),
}
CAPABILITIES: Final[Mapping[str, tuple[int, str]]] = {
    "CAP_DAC_READ_SEARCH": (2, "files of others cannot be read"),
    "CAP_SYS_ADMIN": (21, "only inotify can watch, directory by directory"),
    "CAP_LEASE": (28, "a file that is being written is recognised later"),
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    area: Literal["host", "vault"]
    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def kernel(release: str) -> Check:
    """Judge the kernel by its release, such as `6.1.0-18-amd64`."""
    parts = release.split(".")
    digits = [part for part in parts[:2] if part.isdigit()]
    if len(digits) < 2:  # noqa: PLR2004 - major and minor
        return Check(area="host", name="kernel", verdict="unknown", detail=release)
    if (int(digits[0]), int(digits[1])) >= KERNEL_MIN:
        return Check(area="host", name="kernel", verdict="ok", detail=release)
    return Check(
        area="host",
        name="kernel",
        verdict="warn",
        detail=f"{release}: too old to watch whole file systems",
        remedy="Linux 5.17 or later; until then inotify watches each directory",
    )


def capabilities(effective: int, whose: str) -> list[Check]:
    """Judge a set of effective capabilities, as in /proc/PID/status."""
    return [
        Check(
            area="host",
            name=name.lower().replace("_", "-"),
            verdict="ok" if effective >> bit & 1 else "warn",
            detail=f"{whose} has it" if effective >> bit & 1 else f"{whose} lacks it: {effect}",
            remedy=""
            if effective >> bit & 1
            else "use the systemd unit that comes with streamd, or run as root",
        )
        for name, (bit, effect) in CAPABILITIES.items()
    ]


def limit(key: str, value: int | None) -> Check:
    """Judge one sysctl; None: this kernel does not have it."""
    wanted, effect = LIMITS[key]
    if value is None:
        return Check(area="host", name=key, verdict="unknown", detail="not in this kernel")
    if value >= wanted:
        return Check(area="host", name=key, verdict="ok", detail=f"{value}")
    return Check(
        area="host",
        name=key,
        verdict="warn",
        detail=f"{value}, below {wanted}: {effect}",
        remedy=f"sysctl -w {key}={wanted}, and for good in /etc/sysctl.d/60-streamd.conf",
    )


def watcher(source: str, path: str, kind: str, why: str) -> Check:
    """Judge what watches a path: fanotify, inotify, polling, or nothing."""
    name = f"watch {source}"
    if kind == "fanotify":
        return Check(area="host", name=name, verdict="ok", detail=f"{path}: {kind}")
    return Check(
        area="host",
        name=name,
        verdict="fail" if kind == "nothing" else "warn",
        detail=f"{path}: {kind} ({why})",
        remedy="make the path exist and readable"
        if kind == "nothing"
        else "changes are found all the same, with more memory or later",
    )


def space(name: str, path: str, *, free_share: float, inode_share: float) -> Check:
    """Judge the room in the file system of one of our own directories."""
    lowest = min(free_share, inode_share)
    what = "inodes" if inode_share < free_share else "space"
    detail = f"{path}: {lowest:.0%} of the {what} is free"
    if lowest >= FREE_SHARE_MIN:
        return Check(area="host", name=name, verdict="ok", detail=detail)
    return Check(
        area="host",
        name=name,
        verdict="fail" if lowest <= 0 else "warn",
        detail=detail,
        remedy="free some, or move it to a larger file system",
    )


def clock(skew_seconds: float, *, uncertainty_seconds: float) -> Check:
    """Judge this host's clock by the service's, which says whole seconds."""
    off = max(abs(skew_seconds) - uncertainty_seconds, 0.0)
    verdict: Verdict = "ok"
    if off > SKEW_WARN_SECONDS:
        verdict = "fail" if off > SKEW_FAIL_SECONDS else "warn"
    ahead = "ahead of" if skew_seconds > 0 else "behind"
    return Check(
        area="vault",
        name="clock",
        verdict=verdict,
        detail=f"{abs(skew_seconds):.0f} s {ahead} the service"
        if off > 1
        else "agrees with the service's",
        remedy="" if verdict == "ok" else "have the host follow a time server (systemd-timesyncd)",
    )


def right(
    name: str, *, has: bool | None, wanted: bool | None, detail: str, remedy: str = ""
) -> Check:
    """Judge one right. `wanted` None: either way is fine; `has` None: it could not be tried."""
    if has is None:
        return Check(area="vault", name=name, verdict="unknown", detail=detail, remedy=remedy)
    if wanted is None or has is wanted:
        return Check(area="vault", name=name, verdict="ok", detail=detail)
    return Check(area="vault", name=name, verdict="fail", detail=detail, remedy=remedy)


def expiry(seconds_left: float | None) -> Check:
    """Judge how long a credential is valid; None: it does not say, or does not end."""
    if seconds_left is None:
        return Check(area="vault", name="credential", verdict="ok", detail="has no end of its own")
    days = seconds_left / 86_400
    if seconds_left <= 0:
        verdict: Verdict = "fail"
        detail = f"expired {-days:.1f} days ago"
    else:
        verdict = "ok" if seconds_left > EXPIRY_WARN_SECONDS else "warn"
        detail = f"valid for {days:.1f} days"
    remedy = "" if verdict == "ok" else "write a new one into its file: it is noticed by itself"
    return Check(area="vault", name="credential", verdict=verdict, detail=detail, remedy=remedy)


def touching(rules: Iterable[Mapping[str, object]], container: str, prefix: str) -> list[str]:
    """Return what the lifecycle rules of an account would do to objects below our prefix.

    `rules` as in the management policy of the account: each with `name`, `enabled` and a
    `definition` of `filters` and `actions`.
    """
    ours = f"{container}/{prefix}"
    found = []
    for rule in rules:
        definition = _table(rule.get("definition"))
        prefixes = _table(definition.get("filters")).get("prefixMatch") or [""]
        assert isinstance(prefixes, list)
        meets = any(ours.startswith(str(each)) or str(each).startswith(ours) for each in prefixes)
        if rule.get("enabled", True) and meets:
            actions = _table(definition.get("actions"))
            verbs = sorted({verb for on in actions.values() for verb in _table(on)})
            found.append(f"{rule.get('name')}: {', '.join(verbs)}")
    return found


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def lifecycle(found: list[str] | None, why_unknown: str) -> Check:
    """Judge lifecycle rules that meet our prefix; None: they could not be read."""
    if found is None:
        return Check(
            area="vault",
            name="lifecycle",
            verdict="unknown",
            detail=why_unknown,
            remedy="look in the portal: no rule may delete or archive what is below the prefix",
        )
    bad = [rule for rule in found if "delete" in rule or "tierToArchive" in rule]
    if bad:
        return Check(
            area="vault",
            name="lifecycle",
            verdict="fail",
            detail="; ".join(bad),
            remedy="exclude the prefix: streamd alone knows what is still needed",
        )
    detail = "; ".join(found) or "no rule meets the prefix"
    return Check(area="vault", name="lifecycle", verdict="ok", detail=detail)
