"""What can be asked on the control socket: one line for each command, and who answers it."""

from typing import TYPE_CHECKING

from streamd.daemon.control import Handler
from streamd.daemon.report import DaemonReport

if TYPE_CHECKING:
    from streamd.daemon.main import Daemon
    from streamd.daemon.traffic import Traffic
    from streamd.daemon.upkeep import Upkeep


def control_commands(daemon: "Daemon", upkeep: "Upkeep", traffic: "Traffic") -> dict[str, Handler]:
    """Return the commands of a running daemon by name."""
    report = DaemonReport(daemon)
    return {
        "status": report.status,
        "problems": report.problems,
        "explain": report.explain,
        "reload": daemon.reloading.request,
        "retention-run": upkeep.run_request,
        "retention-release": upkeep.release_request,
        "verify": upkeep.verification.request,
        "pause": traffic.pause,
        "resume": traffic.resume,
        "limit": traffic.limit,
    }
