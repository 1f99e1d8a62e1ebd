"""The peer's process: builds DeepCTR's MMOE, then trains one pass for each line on its standard input.

Nothing of ours is imported. The widths are fixed: 8 experts of 256-128, four binary towers of 64, batches of 1024,
Adam, and all else as the peer has it by default. Answers are lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

_BATCH_SIZE = 1024
_TASKS = ["click", "watch", "like", "save"]


def main() -> None:
    given = json.loads(sys.argv[1])
    # The peer prints to standard output when it is imported.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import numpy as np
    import tensorflow as tf
    from deepctr.feature_column import DenseFeat, SparseFeat
    from deepctr.models import MMOE

    columns = [SparseFeat(f"c{i}", rows, embedding_dim=given["dim"]) for i, rows in enumerate(given["rows"])]
    columns += [DenseFeat(f"n{i}", 1) for i in range(given["numeric"])]
    model = MMOE(
        columns,
        num_experts=8,
        expert_dnn_hidden_units=(256, 128),
        tower_dnn_hidden_units=(64,),
        task_types=["binary"] * len(_TASKS),
        task_names=_TASKS,
    )
    model.compile("adam", loss=["binary_crossentropy"] * len(_TASKS))
    rng = np.random.default_rng(1)
    shape = (given["steps"], _BATCH_SIZE)
    features = {f"c{i}": rng.integers(0, rows, shape, dtype=np.int32) for i, rows in enumerate(given["rows"])}
    features |= {f"n{i}": rng.standard_normal(shape, dtype=np.float32) for i in range(given["numeric"])}
    labels = tuple(rng.integers(0, 2, shape).astype(np.float32) for _ in _TASKS)
    dataset = tf.data.Dataset.from_tensor_slices((features, labels)).prefetch(2)
    answers.write(json.dumps({"parameters": model.count_params()}) + "\n")
    for _ in sys.stdin:
        started = time.perf_counter()
        model.fit(dataset, verbose=0)
        answers.write(json.dumps({"step_seconds": (time.perf_counter() - started) / given["steps"]}) + "\n")


if __name__ == "__main__":
    main()
