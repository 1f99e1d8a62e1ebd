"""The ranker against DeepCTR 0.9.4's MMOE on real logs: same features, same split by time, several seeds.

The peer is given what ours is: rows of tables by our vocabularies and of our widths, numbers transformed and
normalised as ours with the same columns for "missing", histories as mean-pooled sequences that share the video's
table, as many experts, the same widths of experts and towers, the same batches. What it has not, because it has no
such thing: quantile embeddings of numbers and crosses before the experts, the shared hidden layer, the shallow tower,
a loss that leaves out missing labels, so no watch time; position it does not see. All else is its default: Adam at
0.001, 1e-5 of L2 on the tables. Its passes, 8 at most, are chosen on the last tenth of the training period, as the
trees' number is (`gradient_boosting`); ours are the preset's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.dataset import labels_of, parsed_dataset
from mmoe_ranker.evaluation import predict
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.features import numeric_input
from mmoe_ranker.model import Ranker
from mmoe_ranker.statistics import Statistics
from tests.benchmarks import peer
from tests.evidence.comparison import by_arm
from tests.evidence.example_sets import public_set
from tests.evidence.intervals import over_seeds, text
from tests.evidence.real_logs import READ, Reading, paired_bootstrap
from tests.evidence.runs import Runs, made_once
from tests.evidence.trainings import trained

SEEDS = (1, 2, 3, 4, 5)
OURS, THEIRS = "ranker", "deepctr"
MAX_PASSES = 8
_WORKER = Path(__file__).with_name("deepctr_ranker.py")
_INPUT, _SPECIFICATION = "input.npz", "specification.json"


def run(folder: Path, seeds: Sequence[int] = SEEDS, max_passes: int = MAX_PASSES) -> dict[str, Any]:
    """Trains both on the data set that the folder is named after, `peers_<data>`, and compares them on its test split.

    Args:
      folder: for the peer's input and predictions.
      seeds: one training each.
      max_passes: of the peer over the training split.

    Returns:
      By objective and metric, both models over seeds and the difference over requests.
    """
    name = folder.name.removeprefix("peers_")
    plan = [
        {"data": name, "arm": arm, "seed": seed, "max_passes": max_passes} for seed in seeds for arm in (OURS, THEIRS)
    ]
    rows = Runs(folder).perform(plan, lambda settings: _one(folder, settings))
    test = np.load(folder / "peer_input" / "test.npz")
    columns = {column: test[column] for column in (REQUEST_ID, "position") if column in test}
    result: dict[str, Any] = {"passes": by_arm(rows, "passes")}
    scores = {arm: [np.load(folder / f"{arm}-{seed}.npz") for seed in sorted(seeds)] for arm in (OURS, THEIRS)}
    for objective, metric in READ[name]:
        reading = Reading(metric, test[f"{objective}_label"], columns)
        both = [[made[objective].astype(float) for made in scores[arm]] for arm in (OURS, THEIRS)]
        ours, theirs = (over_seeds([reading(one) for one in model]) for model in both)
        difference = paired_bootstrap(reading, both[0], both[1])
        result[f"{objective} {metric}"] = {OURS: ours, THEIRS: theirs, "difference": difference}
        print(
            f"{objective:12s} {metric:10s} ranker {text(ours)}, DeepCTR {text(theirs)}, difference {text(difference)}"
        )
    return result


def _one(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    name, arm, seed = settings["data"], settings["arm"], settings["seed"]
    examples = public_set(folder.parent, name) / "examples"
    config = load_config(name, [f"training.seed={seed}"])
    given = made_once(folder / "peer_input", lambda new: write_input(config, examples, new))
    out = folder / f"{arm}-{seed}.npz"
    if arm == OURS:
        with trained(config, examples) as ranker:
            made = predict(ranker, examples, "test", config)
        np.savez(out, **{objective: made.predictions[objective] for objective, _ in READ[name]})
        return {"passes": config.training.epochs}
    most = settings["max_passes"]
    chosen = made_once(folder / f"passes-of-{most}", lambda new: _choose_passes(given, most, new))
    passes = json.loads((chosen / "passes.json").read_text(encoding="utf-8"))["passes"]
    _worker(given, seed=seed, passes=passes, out=str(out.resolve()))
    return {"passes": passes}


def _choose_passes(given: Path, most: int, folder: Path) -> None:
    (folder / "passes.json").write_text(json.dumps(_worker(given, seed=1, passes=most, choose=True)), encoding="utf-8")


def _worker(given: Path, **options: Any) -> Any:
    """What the peer's process answers.

    Raises:
      PeerError: it is not installed, or stops.
    """
    peer.install()
    specification = json.loads((given / _SPECIFICATION).read_text(encoding="utf-8"))
    argument = json.dumps({**specification, "arrays": str((given / _INPUT).resolve()), **options})
    environment = {**os.environ, "PYTHONPATH": str(peer.FOLDER.resolve()), "TF_USE_LEGACY_KERAS": "1"}
    command = [sys.executable, str(_WORKER), argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise peer.PeerError(f"{peer.REQUIREMENT} stopped: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return json.loads(done.stdout)


def write_input(config: Config, examples: Path, folder: Path) -> None:
    """Writes the peer's arrays and the specification of its model, and the test split's labels and groups."""
    statistics = Statistics.load(examples)
    ranker = Ranker(config, statistics)
    tasks = [objective.name for objective in config.objectives if objective.kind == "binary"]
    arrays: dict[str, np.ndarray] = {}
    test: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        batches = []
        for parsed in parsed_dataset(examples, split, config):
            served = {feature.name: parsed[feature.name] for feature in config.served_features}
            columns = _columns(config, ranker, statistics, served) | {
                f"{task}_label": labels_of(parsed, config)[task] for task in tasks
            }
            if split == "test":
                columns |= {f"group/{name}": parsed[name] for name in (REQUEST_ID, "position") if name in parsed}
            batches.append({name: np.asarray(values) for name, values in columns.items()})
        for name in batches[0]:
            values = np.concatenate([batch[name] for batch in batches])
            if name.startswith("group/"):
                test[name.removeprefix("group/")] = values.astype(str) if values.dtype == object else values
            elif split == "test" and name.endswith("_label"):
                test[name] = values.astype(float)
            else:
                arrays[f"{split}/{name}"] = values
    np.savez(folder / _INPUT, **arrays)
    np.savez(folder / "test.npz", **test)
    specification = _specification(config, ranker, arrays) | {"tasks": tasks}
    (folder / _SPECIFICATION).write_text(json.dumps(specification), encoding="utf-8")


def _columns(config: Config, ranker: Ranker, statistics: Statistics, served: Mapping[str, Any]) -> dict[str, Any]:
    """The served features as the peer takes them: rows, sequences of one length with 0 for no value, numbers."""
    rows = ranker.feature_rows(served)
    columns: dict[str, Any] = {}
    for feature in config.served_features:
        values = rows[feature.name]
        if feature.kind == "numeric":
            values = numeric_input([feature], statistics)(values[:, np.newaxis])
        elif feature.kind == "sequence":
            filled = np.zeros((len(values), feature.max_length), np.int32)
            filled[:, : values.shape[1]] = values.numpy()[:, : feature.max_length]
            values = filled
        columns[feature.name] = values
    return columns


def _specification(config: Config, ranker: Ranker, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    served = {feature.name: feature for feature in config.served_features}
    rows = ranker.feature_rows.rows
    return {
        "sparse": {name: [rows[name].num_rows, f.dim] for name, f in served.items() if f.kind == "categorical"},
        "shared": {name: [f.embedding, f.max_length] for name, f in served.items() if f.kind == "sequence"},
        "dense": {name: arrays[f"train/{name}"].shape[1] for name, f in served.items() if f.kind == "numeric"},
        "experts": config.model.sharing.experts,  # type: ignore[union-attr]
        "units": list(config.model.sharing.units),
        "tower": list(config.model.tower),
        "batch_size": config.training.batch_size,
    }
