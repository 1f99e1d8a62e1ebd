"""Section `tables`, and what a feature takes from a user's own feedback: values as of the impression's time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mmoe_ranker.config_fields import Frozen, Name


class Table(Frozen):
    """A table of users, items or the like, whose rows say since when they hold.

    A row holds for its `key` from its `timestamp` on, that time included, until the key's next row; `timestamp: null`,
    which must be written, is for a table whose rows hold always. `key` is the item key, or a categorical feature that
    stands in the impressions log.
    """

    name: Name
    key: Name
    timestamp: Name | None


class History(Frozen):
    """The items of a user's earlier events called `event`, as of the request.

    The user is known by the context feature `by`. An event is earlier where it happened, and its own impression's
    request too, before the request's time less `delay` seconds.
    """

    event: str = Field(min_length=1)
    by: Name
    delay: Annotated[float, Field(ge=0.0)] = 0.0
