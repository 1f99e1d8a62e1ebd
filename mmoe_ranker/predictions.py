"""What a model says of the impressions of a split, beside their labels: what evaluation starts from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.examples import REQUEST_ID

_HEALTH, _EVERYTHING = b"expert_health", b"everything"


@dataclasses.dataclass(frozen=True)
class Everything:
    """What is known of all impressions, where a sample of them was kept.

    Attributes:
      impressions: how many there are.
      share: of the units, that was kept.
      by: what a unit is: `request_id`, or a feature.
      totals: by binary objective, over all impressions; none where the predictions were read from a file.
    """

    impressions: int
    share: float
    by: str
    totals: Mapping[str, metrics.BinnedTotals] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A split with what the model says of it; N impressions in order of time.

    Attributes:
      predictions: by objective, [N], bias features missing.
      labels: by objective, [N], NaN where missing.
      columns: by name, [N]: `request_id`, `item_id`, and every categorical feature as it stands in the examples.
      expert_health: what the gates did with the experts, where there are any.
      seen: by objective, [N], the predictions with the bias features as they were logged; None where the model's
        kind of bias modelling takes none into its predictions.
      everything: where there were more impressions than are kept (`bounded_predictions`), what is known of all.
    """

    predictions: dict[str, NDArray[np.float64]]
    labels: dict[str, NDArray[np.float64]]
    columns: dict[str, NDArray[Any]]
    expert_health: metrics.ExpertHealth | None = None
    seen: dict[str, NDArray[np.float64]] | None = None
    everything: Everything | None = None

    def __len__(self) -> int:
        return len(self.columns[REQUEST_ID])

    def select(self, rows: NDArray[Any]) -> Predictions:
        """Those of some impressions, without the health of the experts and the totals, which are of all of them.

        Args:
          rows: [M], indices of impressions in the order wanted.
        """
        parts: dict[str, Any] = {
            name: {key: column[rows] for key, column in part.items()}
            for name in ("predictions", "labels", "columns", "seen")
            if (part := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, expert_health=None, everything=None, **parts)

    def save(self, file: Path) -> None:
        """Writes a Parquet file: a row an impression, in the same order.

        Columns are `prediction.<objective>`, `label.<objective>`, `seen.<objective>` and `column.<name>`; the health of
        the experts stands in the file's metadata.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = {"prediction": self.predictions, "label": self.labels, "seen": self.seen or {}, "column": self.columns}
        arrays = {
            f"{part}.{name}": pa.array(values.astype(np.float32))
            if part != "column"
            else pa.array(values, pa.binary() if values.dtype.kind in "OS" else None)  # for none at all, too
            for part, columns in parts.items()
            for name, values in columns.items()
        }
        health = None
        if self.expert_health is not None:
            health = {name: np.asarray(value).tolist() for name, value in self.expert_health._asdict().items()}
        everything = self.everything and [self.everything.impressions, self.everything.share, self.everything.by]
        metadata = {_HEALTH: json.dumps(health), _EVERYTHING: json.dumps(everything)}
        pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), file)

    @classmethod
    def load(cls, file: Path) -> Predictions:
        """Reads what `save` wrote."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = pq.read_schema(file).names
        # Names and ids repeat: as entries of a dictionary each is one object, however many rows have it.
        parquet = pq.ParquetFile(file, read_dictionary=[name for name in names if name.startswith("column.")])
        parts: dict[str, dict[str, NDArray[Any]]] = {"prediction": {}, "label": {}, "seen": {}, "column": {}}
        for field in names:
            part, _, name = field.partition(".")
            column = parquet.read([field]).column(0)
            if pa.types.is_dictionary(column.type):
                coded = column.unify_dictionaries().combine_chunks()
                values = coded.dictionary.to_numpy(zero_copy_only=False)[coded.indices.to_numpy()]
            else:
                values = column.to_numpy()
            parts[part][name] = values if part == "column" else values.astype(np.float64)
        health = json.loads(parquet.schema_arrow.metadata[_HEALTH])
        if health is not None:
            dead = health.pop("dead_experts")
            health = metrics.ExpertHealth(
                **{name: np.array(value) for name, value in health.items()}, dead_experts=dead
            )
        known = json.loads(parquet.schema_arrow.metadata.get(_EVERYTHING, b"null"))
        everything = Everything(*known) if known else None
        return cls(parts["prediction"], parts["label"], parts["column"], health, parts["seen"] or None, everything)
