"""`streamd` whose look-ups of handles wait while a file exists: a watch that does not get on.

python -m system.held_events FILE run -c …
"""

import sys
import time
from pathlib import Path


def main() -> None:
    """Run streamd with the arguments after the file."""
    held = Path(sys.argv.pop(1))
    from streamd.cli.main import main as streamd
    from streamd.sources.filesystem.handles import Answer, Question, answer_to
    from streamd.sources.filesystem.mountwatch import MountWatch

    def look_up(question: Question) -> Answer:
        while held.exists():
            time.sleep(0.02)
        return answer_to(question)

    defaults = MountWatch.__init__.__kwdefaults__
    assert "look_up" in defaults
    defaults["look_up"] = look_up
    sys.exit(int(streamd(sys.argv[1:])))


if __name__ == "__main__":
    main()
