"""`python -m streamd` is the same as the `streamd` command."""

from streamd.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
