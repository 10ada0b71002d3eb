"""The vault: recovery points on top of a BlobStore. Knows nothing of the host."""
