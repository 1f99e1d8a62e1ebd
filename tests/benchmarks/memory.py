"""How much more memory this process came to need since a moment, whatever it needed before."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Starts to watch; Linux alone keeps a peak that can be set back."""

    def __init__(self) -> None:
        self._start: int | None = None
        if _CLEAR.exists():
            _CLEAR.write_text("5", encoding="ascii")  # the peak becomes what is used now
            self._start = _kilobytes()

    def grown(self) -> str:
        """By how much the peak has grown, in words for a note."""
        if self._start is None:
            return "by an amount that this system does not tell"
        return f"by {(_kilobytes() - self._start) / 1024:.0f} MB"


def _kilobytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
    assert found is not None, "VmHWM stands in every process's status"
    return int(found.group(1))
