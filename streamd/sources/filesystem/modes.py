"""How trees can be watched, and how often those are looked at that nobody tells us about."""

from typing import Final

FANOTIFY: Final = "fanotify"
INOTIFY: Final = "inotify"
POLLING: Final = "polling"
WATCH_MODES: Final = (FANOTIFY, INOTIFY, POLLING)  # from best to worst
POLL_SECONDS: Final = 10.0
