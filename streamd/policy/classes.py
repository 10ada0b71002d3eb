"""In which class an entry below a source is: each is in exactly one.

protected: captured as it is. pending: noticed, and not captured yet. fuzzy: captured, and perhaps
not of one state. unreadable: not captured as it is now, whatever the reason; an earlier version
stays. excluded: left out by a rule (an excluded directory counts as one). too-large: left out by
its size. vanished: captured, and not there now, and not known to be deleted.
"""

from typing import Final

PROTECTED: Final = "protected"
PENDING: Final = "pending"
FUZZY: Final = "fuzzy"
UNREADABLE: Final = "unreadable"
EXCLUDED: Final = "excluded"
TOO_LARGE: Final = "too-large"
VANISHED: Final = "vanished"
EVENTS_WAIT: Final = "events-wait"  # of a source: what changed in it may not be noticed yet
FILE_CLASSES: Final = (PROTECTED, PENDING, FUZZY, UNREADABLE, EXCLUDED, TOO_LARGE, VANISHED)

_BY_REASON: Final = {
    "fuzzy": FUZZY,
    "postgres-running": FUZZY,
    "hook-failed": FUZZY,
    "too-large": TOO_LARGE,
    "excluded": EXCLUDED,
    "vanished": VANISHED,
    "source-missing": VANISHED,
    "pending": PENDING,
    EVENTS_WAIT: PENDING,
}
_REMEDIES: Final = {
    "fuzzy": "it is read again until it stands still; a clone needs xfs or btrfs, see durability",
    "postgres-running": "protect pg_dump or pg_basebackup by a source of kind command",
    "sqlite-failed": 'free what locks it, or set sqlite = "plain" for the source',
    "command-failed": "run the command by hand as streamd's user",
    "hook-failed": "run the hook by hand as streamd's user",
    "too-large": "raise max_file_size if it is to be protected",
    "unreadable": "give streamd's user the right to read it, or exclude it",
    "io-error": "look at the kernel's log: the disk or its file system is damaged",
    "source-missing": "bring the path back, or take it out of the configuration",
    "suspect": "streamd diff, restore what was lost; then streamd retention release SOURCE",
    "pending": "wait: it is captured with the next cut",
    EVENTS_WAIT: "find what changes so much on that file system, or makes it so slow; see alerts",
}


def class_of(reason: str) -> str:
    """Return the class of an entry that has a problem for this reason."""
    return _BY_REASON.get(reason, UNREADABLE)


def remedy_of(reason: str) -> str:
    """Return what somebody can do about a problem; empty if nothing needs to be done."""
    return _REMEDIES.get(reason, "")
