"""Trees of files on this host: how they are watched, looked at and read."""
