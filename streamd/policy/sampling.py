"""How many things to look at, and from which strata, so that damage does not go unnoticed."""

import math
from collections.abc import Sequence

DAMAGE_SHARE = 0.001  # what a sample is to find …
CONFIDENCE = 0.99  # … with this probability


def sample_size(share: float = DAMAGE_SHARE, confidence: float = CONFIDENCE) -> int:
    """Return how many to draw so that damage of that share is met with that probability.

    Of very many things, each draw misses with 1 - share; of fewer the sample finds it rather more
    often. 0.1 % with 99 % need 4,603.
    """
    if not 0 < share < 1 or not 0 < confidence < 1:
        raise ValueError("a share and a confidence lie between 0 and 1")
    return math.ceil(math.log(1 - confidence) / math.log(1 - share))


def allot(total: int, strata: Sequence[int]) -> list[int]:
    """Divide `total` draws among strata of these sizes: by size, and at least one of each.

    None gets more than it has. The largest remainders get what rounding leaves, the first first.
    """
    whole = sum(strata)
    if total >= whole:
        return list(strata)
    shares = [total * size / whole for size in strata]
    found = [min(size, max(int(share), 1)) for size, share in zip(strata, shares, strict=True)]
    order = sorted(range(len(strata)), key=lambda index: int(shares[index]) - shares[index])
    while sum(found) < total:
        for index in order:
            if sum(found) < total and found[index] < strata[index]:
                found[index] += 1
    least = sum(1 for size in strata if size)
    while sum(found) > max(total, least):  # small strata were rounded up: the largest pays
        found[found.index(max(found))] -= 1
    return found
