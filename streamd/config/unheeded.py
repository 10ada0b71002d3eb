"""What a configuration asks for and this release does not do: said wherever somebody looks."""

from streamd.config.model import Config
from streamd.config.units import format_duration


def unheeded(config: Config) -> tuple[str, ...]:
    """Return a sentence for each key that is set, valid, and not acted on."""
    return tuple(
        f'policies.{name}.keep_deleted = "{format_duration(policy.keep_deleted_seconds)}" is not'
        " acted on: the last version of a deleted file goes with the last point that shows it"
        for name, policy in sorted(config.policies.items())
        if policy.keep_deleted_seconds
    )
