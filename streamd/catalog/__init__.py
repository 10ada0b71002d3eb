"""What this host remembers (SQLite): tree, dirty set, chunk index, journal head. Disposable."""
