"""The configuration: types, reading, checks, and what a reload changes."""
