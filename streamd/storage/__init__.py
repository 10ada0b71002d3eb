"""Objects by name: one port, its adapters and their wrappers."""
