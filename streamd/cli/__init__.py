"""The command line: one file per command, a contract in names, meanings, exit codes and JSON."""
