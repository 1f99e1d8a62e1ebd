"""One finding of `verify`."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "failed", "skipped"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: Names the check, for programs.
        about: The signature that was checked; empty where it is the whole version.
        status: `skipped` where there was nothing to check, or nothing to check it by.
        sentence: What was found.
    """

    check: str
    about: str
    status: Status
    sentence: str

    @property
    def name(self) -> str:
        """The check and what it is about, for people."""
        return f"{self.check} ({self.about})" if self.about else self.check


def found(check: str, problems: list[str], good: str, about: str = "") -> Finding:
    """A finding that failed where there are problems, of which it names a few, and else is `good`."""
    if not problems:
        return Finding(check, about, "ok", good)
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return Finding(check, about, "failed", f"{'; '.join(problems[:3])}{more}.")
