"""What all metrics have in common, without what counts them."""

from typing import Final

NAMESPACE: Final = "streamd"
SOURCE_LABEL: Final = "source"
DESTINATIONS: Final = ("local", "vault")
