"""Beam's worker process for Python, silent: what a step raises reaches the runner, which raises it again.

It ends with the process that started it, even when that is killed and cannot say so: Beam's own waits for ever then.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time


def main() -> None:
    """Serves the runner that started this process, until it closes the connection or is gone."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
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


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
