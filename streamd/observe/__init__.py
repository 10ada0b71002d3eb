"""What the outside may see: metrics and logs."""
