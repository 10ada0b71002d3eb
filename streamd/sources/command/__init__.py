"""What a program writes to its standard output, as a source; and programs run around captures."""
