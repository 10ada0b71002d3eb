"""The `streamd` command, and `python -m streamd`."""

import gc


def main() -> int:
    """Run the command and return its exit code.

    What is imported stays to the end. Looking through it for garbage again and again while it
    grows takes a fifth of the start, so the collector waits until `daemon.garbage` sets all that
    aside, or a short command has ended.
    """
    gc.disable()
    from streamd.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
