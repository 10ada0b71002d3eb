"""Looking after the vault: what to keep, what to collect, what to verify, what to rebuild."""
