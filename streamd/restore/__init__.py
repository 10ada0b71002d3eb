"""Bring back files as they were: plan, look at the target, fetch, write, prove."""
