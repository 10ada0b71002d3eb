"""Bytes, forwards, with backpressure: from a place to look at to a durable record."""
