"""Numbers as JSON takes them, which has no NaN and no infinity."""

from __future__ import annotations

import math
from typing import Any


def without_nan(node: Any) -> Any:
    """The document with None for every float that is NaN or infinite.

    Example:
        >>> without_nan({"auc": float("nan"), "interval": [0.5, float("inf")]})
        {'auc': None, 'interval': [0.5, None]}

    Args:
        node: Dicts, lists and what they hold; a named tuple is to be made a dict before.
    """
    if isinstance(node, dict):
        return {key: without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
