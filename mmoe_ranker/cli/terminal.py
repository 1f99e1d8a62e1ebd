"""What a user sees beside results: a clock, and one sentence for an error."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import click
from tqdm import tqdm


def fail(sentence: str, status: int) -> NoReturn:
    """Ends the process with a sentence on standard error."""
    click.echo(f"mmoe-ranker: {sentence}", err=True)
    sys.exit(status)


@contextlib.contextmanager
def elapsed(step: str) -> Iterator[None]:
    """Shows on a terminal that a step, which cannot say how far it is, is still at work."""
    done = threading.Event()

    def tick() -> None:
        with tqdm(desc=step, bar_format="{desc}: {elapsed}", leave=False, disable=None) as clock:
            while not done.wait(0.5):
                clock.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
