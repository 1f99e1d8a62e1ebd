"""TensorFlow loaded when it is needed, and without the banner that it writes past its own log level."""

from __future__ import annotations

import os
import tempfile
from typing import Any


def load_tensorflow(look_for_devices: bool = True) -> Any:
    """Imports TensorFlow quietly; what it said comes out only where it fails.

    Args:
      look_for_devices: now, with the messages of that; a process of a cluster has to name the others before it does.

    Returns:
      The module.
    """
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as banner:
        os.dup2(banner.fileno(), 2)
        try:
            import tensorflow as tf

            if look_for_devices:
                tf.constant(0)
        except BaseException:
            banner.seek(0)
            os.write(standard_error, banner.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
    return tf
