"""Measures streamd beside restic and borg on the same data: `python -m bench --help`."""
