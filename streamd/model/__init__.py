"""What things are: identifiers, entries, records and points. Values only."""
