"""Under which terms a source is protected: what the process, and the one before it, mean for it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from streamd.daemon.compare_worker import Task
from streamd.daemon.handover import Handover

if TYPE_CHECKING:
    from streamd.daemon.hooks import Hooks

RECONCILE_SECONDS: Final = 3600.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are those of a source that stands alone, as in a one-shot capture."""

    was_clean: bool = False  # the last daemon stopped in good order
    past: Handover | None = None  # what it left
    settings: bytes = b""  # as in Handover
    is_ending: Callable[[], bool] = lambda: False  # watching ends for the whole process
    # makes a task for processes that compare the source, from scopes and whether to give way
    describe: Callable[[Sequence[bytes], bool], Task] | None = None
    reconcile_seconds: float = RECONCILE_SECONDS
    reread_seconds: float = 0.0  # every file is read again within this time; 0: never
    canary_seconds: float = 0.0  # between two canaries; 0: none
    hooks: "Hooks | None" = None  # programs to run around each capture
