"""What the daemon loads at its start, and a command by hand with its first use.

A process that runs for months loads nothing later. When the package is upgraded, the files on disk
are another release's before the restart. And what is loaded in the midst of work lies scattered
among what comes and goes, so that memory cannot be given back.

What only a start can need (to make a catalog, to read a credential) is not here: then it is loaded.
"""

from types import ModuleType


def load_all() -> tuple[ModuleType, ...]:
    """Load what the daemon may need later; return it. To be called before `memory.settle`."""
    import difflib
    import tempfile
    import unicodedata
    import zoneinfo
    from email import utils

    import pathspec
    import pyfastcdc
    from lz4 import block

    from streamd.daemon import hooks
    from streamd.maintenance import (
        checkpoint_due,
        expire,
        facts,
        heal,
        points,
        runs,
        verify,
        verify_documents,
        verify_facts,
        verify_report,
        verify_versions,
    )
    from streamd.observe import rendering
    from streamd.sources.command import source
    from streamd.sources.filesystem import devicewatch, fanotify, handles, watching

    return (
        *(difflib, tempfile, unicodedata, zoneinfo, utils, pathspec, pyfastcdc, block),
        *(checkpoint_due, expire, facts, heal, points, runs, rendering),
        *(hooks, source, devicewatch, fanotify, handles, watching),
        *(verify, verify_documents, verify_facts, verify_report, verify_versions),
    )
