"""The peer's process: trains DeepCTR's MMOE on arrays and predicts; nothing of ours is imported.

Called with one argument, JSON: `arrays` (npz of `train/<name>` and `test/<name>`), `sparse` {name: [rows, width]},
`shared` {sequence: [table, length]}, `dense` {name: width}, `tasks`, `experts`, `units`, `tower`, `batch_size`, `seed`,
`passes`, `out` (npz of predictions, by task). With `choose` instead of `out`: trains on the first nine tenths and
prints the number of passes, at most `passes`, with the best mean AUC on the last tenth; two worse ones end the search.
"""

from __future__ import annotations

import json
import os
import sys

_PATIENCE = 2


def main() -> None:
    given = json.loads(sys.argv[1])
    # The peer prints to standard output when it is imported.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import numpy as np
    import tensorflow as tf
    from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr.models import MMOE
    from sklearn.metrics import roc_auc_score

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.utils.set_random_seed(given["seed"])
    tasks = given["tasks"]
    columns = [SparseFeat(name, rows, embedding_dim=width) for name, (rows, width) in given["sparse"].items()]
    for name, (table, length) in given["shared"].items():
        rows, width = given["sparse"][table]
        column = SparseFeat(name, rows, embedding_dim=width, embedding_name=table)
        columns.append(VarLenSparseFeat(column, maxlen=length, combiner="mean"))
    columns += [DenseFeat(name, width) for name, width in given["dense"].items()]
    model = MMOE(
        columns,
        num_experts=given["experts"],
        expert_dnn_hidden_units=given["units"],
        tower_dnn_hidden_units=given["tower"],
        task_types=["binary"] * len(tasks),
        task_names=tasks,
        seed=given["seed"],
    )
    model.compile("adam", loss=["binary_crossentropy"] * len(tasks))

    arrays = np.load(given["arrays"])
    train = {name.removeprefix("train/"): arrays[name] for name in arrays.files if name.startswith("train/")}
    test = {name.removeprefix("test/"): arrays[name] for name in arrays.files if name.startswith("test/")}
    labels = {name: train.pop(f"{name}_label") for name in tasks}
    count = len(labels[tasks[0]])
    last = int(count * 0.9) if given.get("choose") else count
    early = {name: values[:last] for name, values in train.items()}
    late = {name: values[last:] for name, values in train.items()}
    aucs = []
    for _ in range(given["passes"]):
        targets = [labels[name][:last] for name in tasks]
        model.fit(early, targets, batch_size=given["batch_size"], epochs=1, verbose=0)
        if given.get("choose"):
            predicted = model.predict(late, batch_size=4096, verbose=0)
            pairs = zip(tasks, predicted, strict=True)
            aucs.append(float(np.mean([roc_auc_score(labels[name][last:], scores) for name, scores in pairs])))
            if len(aucs) - np.argmax(aucs) > _PATIENCE:
                break
    if given.get("choose"):
        answers.write(json.dumps({"passes": int(np.argmax(aucs)) + 1, "auc_by_pass": aucs}) + "\n")
        return
    predicted = model.predict(test, batch_size=4096, verbose=0)
    np.savez(given["out"], **{name: scores.ravel() for name, scores in zip(tasks, predicted, strict=True)})
    answers.write(json.dumps({"parameters": model.count_params()}) + "\n")


if __name__ == "__main__":
    main()
