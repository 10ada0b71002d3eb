"""streamd protects files continuously to an encrypted, deduplicated vault, and can prove it."""

__version__ = "0.1.0"
