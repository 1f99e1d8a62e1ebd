"""Down-sampling of training impressions without events: which ones stay, what they stand for, what was left out.

An impression with any event of the config's objectives always stays. One without stays where a hash of its request and
item, a number from 0 to 1, is below `sampling.negatives`: chance, but the same for any number of workers and runs.
Validation and test are left whole.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa

from mmoe_ranker.config import Config
from mmoe_ranker.examples import SAMPLING_WEIGHT, label_name
from pipelines.batches import ImpressionBatch

HAS_EVENT = "_has_event"
"""Column of a joined batch: whether any event of the config's objectives joined, of whatever label it became."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A batch with its sampling weights, and which of its rows stay.

    Attributes:
      batch: the whole batch, `sampling_weight` (float32) added: 1 / share for a sampled negative, else 1.
      kept: [I] booleans.
      counts: `("impressions", "sampled_out")`, and `("negatives", "kept" or "all", objective)` of binary objectives.
    """

    batch: ImpressionBatch
    kept: np.ndarray
    counts: Counter[tuple[str, ...]]


def sample_negatives(config: Config, batch: ImpressionBatch, training: np.ndarray) -> Sampled:
    """Chooses the impressions that become examples.

    Args:
      config: with `sampling`.
      batch: joined, with the column `HAS_EVENT`.
      training: [I], whether an impression belongs to the training split.
    """
    assert config.sampling is not None
    share = config.sampling.negatives
    impressions = batch.impressions
    sampled = training & ~impressions[HAS_EVENT].to_numpy()
    kept = ~sampled | (chances(batch) < share)
    weights = np.where(sampled, 1.0 / share, 1.0).astype(np.float32)
    counts: Counter[tuple[str, ...]] = Counter({("impressions", "sampled_out"): int((~kept).sum())})
    for objective in config.objectives:
        if objective.kind == "binary":
            negative = training & (impressions[label_name(objective.name)].to_numpy() == 0.0)
            counts["negatives", "all", objective.name] = int(negative.sum())
            counts["negatives", "kept", objective.name] = int((negative & kept).sum())
    impressions = impressions.drop_columns([HAS_EVENT]).append_column(SAMPLING_WEIGHT, pa.array(weights))
    return Sampled(ImpressionBatch(batch.contexts, impressions), kept, counts)


def chances(batch: ImpressionBatch) -> np.ndarray:
    """A number in [0, 1) an impression [I], from a hash of its request and item."""
    request = batch.contexts["_request"].to_numpy()[batch.impressions["_row"].to_numpy()]
    keys = pd.DataFrame({"request": request, "item": batch.impressions["_item"].to_numpy()})
    hashed = pd.util.hash_pandas_object(keys, index=False).to_numpy()
    return (hashed >> np.uint64(11)) * 2.0**-53
