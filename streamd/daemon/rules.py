"""The configured policies as the rules that retention goes by."""

from streamd.config.model import Config, PolicyConfig
from streamd.effects import MICROSECONDS
from streamd.policy.retention import Rule


def rule_of(policy: PolicyConfig) -> Rule:
    """Return a configured policy as the retention rule it means."""
    return Rule(
        continuous_us=policy.continuous_seconds * MICROSECONDS,
        hourly=policy.hourly,
        daily=policy.daily,
        weekly=policy.weekly,
        monthly=policy.monthly,
        yearly=policy.yearly,
    )


def rules_of(config: Config) -> dict[str, Rule]:
    """Return the rule of every configured source."""
    return {name: rule_of(config.policy_of(name)) for name in config.sources}
