"""Beam's worker process for Python, silent: what a step raises reaches the runner, which raises it again."""

from __future__ import annotations

import logging
import os
import sys


def main() -> None:
    """Serves the runner that started this process, until it closes the connection."""
    logging.disable(logging.CRITICAL)
    from apache_beam.runners.worker import sdk_worker_main

    terminal = sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        # The worker prints the traceback of a failed step beside reporting it.
        sys.stderr = nowhere
        try:
            sdk_worker_main.main(sys.argv)
        finally:
            sys.stderr = terminal


if __name__ == "__main__":
    main()
