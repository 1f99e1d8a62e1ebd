"""What a user sees beside results: a clock, one sentence for an error, and no banners."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import NoReturn

import click
from tqdm import tqdm


def fail(sentence: str, status: int) -> NoReturn:
    """Ends the process with a sentence on standard error."""
    click.echo(f"mmoe-ranker: {sentence}", err=True)
    sys.exit(status)


def load_tensorflow(look_for_devices: bool = True) -> None:
    """Imports TensorFlow without the banner that it writes past its own log level: errors here are one sentence."""
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as banner:
        os.dup2(banner.fileno(), 2)
        try:
            import tensorflow as tf

            # Looks for devices now, with its messages; a process of a cluster has to name the others before that.
            if look_for_devices:
                tf.constant(0)
        except BaseException:
            banner.seek(0)
            os.write(standard_error, banner.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


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
