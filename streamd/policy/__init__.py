"""What to do and when: pure decisions about time, retention, retries and collection."""
