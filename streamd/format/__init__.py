"""What bytes mean in a vault: the code twin of docs/format.md. Values in, values out."""
