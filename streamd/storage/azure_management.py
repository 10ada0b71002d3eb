"""What only Azure's management plane knows of a storage account: its lifecycle rules.

Read with a token for that plane; the identity needs the role *Reader* on the account. Keys and SAS
tokens open the data plane alone.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

ENDPOINT: Final = "https://management.azure.com"
SCOPE: Final = "https://management.azure.com/.default"
_VERSION: Final = "2023-05-01"
_SECONDS: Final = 15.0
_OK: Final = 200
_NOT_FOUND: Final = 404
_ANSWER_BYTES_MAX: Final = 4 << 20


async def lifecycle_rules(
    token: str, resource_id: str, *, endpoint: str = ENDPOINT
) -> list[Mapping[str, Any]] | str:
    """Return the rules of the account, or why they could not be read.

    `resource_id`: /subscriptions/…/storageAccounts/NAME. An account without a management policy is
    answered with 404, and has no rules.
    """
    url = f"{endpoint}{resource_id}/managementPolicies/default?api-version={_VERSION}"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with (
            asyncio.timeout(_SECONDS),
            aiohttp.ClientSession(trust_env=True) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            if answer.status == _NOT_FOUND:
                return []
            if answer.status != _OK:
                return f"the management plane answered {answer.status}: it takes the role Reader"
            body = json.loads(await answer.content.read(_ANSWER_BYTES_MAX))
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return f"the management plane cannot be reached: {type(error).__name__}"
    properties = body.get("properties") if isinstance(body, dict) else None
    policy = properties.get("policy") if isinstance(properties, dict) else None
    rules = policy.get("rules") if isinstance(policy, dict) else None
    return [rule for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []
