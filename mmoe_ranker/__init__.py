"""YouTube's multitask ranking system (Zhao et al., RecSys 2019) for teams that rank on their own logs.

Importing the package is light: nothing here loads TensorFlow. What it does do is guard Keras, in this one place:
tensorflow-recommenders needs Keras 2 (tf-keras), which TensorFlow chooses by an environment variable that it reads
when `tf.keras` is first touched.
"""

from __future__ import annotations

import os
import sys

from mmoe_ranker.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "__version__"]

_LEGACY = "TF_USE_LEGACY_KERAS"


def _require_keras_2() -> None:
    value = os.environ.setdefault(_LEGACY, "1")
    if value.lower() not in ("1", "true"):
        raise InputError(
            f"The environment variable `{_LEGACY}` must be 1 or unset, because tensorflow-recommenders needs Keras 2: "
            f"unset it, or set it to 1, before Python starts. Received: {value!r}."
        )
    # Touching tf.keras loads it, as Keras 2 if nobody had touched it: so look only where Keras 3 is loaded at all.
    if "keras" not in sys.modules or "tensorflow" not in sys.modules:
        return
    if not sys.modules["tensorflow"].keras.Model.__module__.startswith("tf_keras"):
        raise InputError(
            "tf.keras must be Keras 2, which tensorflow-recommenders needs, but was loaded before mmoe_ranker was "
            f"imported: import mmoe_ranker first, or set {_LEGACY}=1 before Python starts. "
            f"Received: Keras {sys.modules['keras'].__version__}."
        )


_require_keras_2()
