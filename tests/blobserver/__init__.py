"""A Blob service in one process: the REST API, what Azurite cannot do, and faults by script."""
