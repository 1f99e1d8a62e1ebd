"""What the pipeline counts on the training split and the model is built from: vocabularies, moments, label rates.

On disk beside the examples: `statistics.json` and `vocabularies/<feature>.txt`, one value a line, most frequent first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from mmoe_ranker.errors import InputError

STATISTICS = "statistics.json"
_VOCABULARIES = "vocabularies"


@dataclasses.dataclass(frozen=True)
class NumericStatistics:
    """Moments of a numeric feature after its transform; `count` leaves out the `missing`.

    `quantiles` are the inner edges of its buckets, rising, in the feature's own unit; none where it has no buckets.
    """

    count: int
    missing: int
    mean: float
    std: float
    min: float
    max: float
    quantiles: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class LabelStatistics:
    """Number of labelled impressions of an objective, and mean, standard deviation and least after its transform.

    `least` is None in files of older versions, and without labels 0. `negatives_kept` is the share of a binary
    objective's negatives (label 0) in the training period that `sampling` kept; all figures are of the kept ones.
    """

    count: int
    mean: float
    std: float
    least: float | None = None
    negatives_kept: float = 1.0


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of the training split: by feature name (`numeric`, `vocabularies`) and objective name (`labels`)."""

    num_examples: int
    numeric: Mapping[str, NumericStatistics]
    labels: Mapping[str, LabelStatistics]
    vocabularies: Mapping[str, tuple[str, ...]]

    def grown_by(self, newer: Statistics) -> Statistics:
        """These statistics with the values that came up since: what weights trained on these may go on with.

        A vocabulary keeps its order, and the newer values follow it in theirs. Moments, quantile edges and label
        statistics stay as they are, because the weights were learned behind them; the number of examples is the newer.
        """
        vocabularies = {
            name: tuple(dict.fromkeys((*values, *newer.vocabularies.get(name, ()))))
            for name, values in self.vocabularies.items()
        }
        return dataclasses.replace(self, num_examples=newer.num_examples, vocabularies=vocabularies)

    def save(self, folder: Path) -> None:
        """Writes `statistics.json` and a file a vocabulary into an existing folder."""
        (folder / _VOCABULARIES).mkdir(exist_ok=True)
        for name, values in self.vocabularies.items():
            text = "".join(f"{value}\n" for value in values)
            (folder / _VOCABULARIES / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
        document = {
            "num_examples": self.num_examples,
            "numeric": {name: dataclasses.asdict(moments) for name, moments in self.numeric.items()},
            "labels": {name: dataclasses.asdict(moments) for name, moments in self.labels.items()},
            "vocabularies": {name: len(values) for name, values in self.vocabularies.items()},
        }
        (folder / STATISTICS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Statistics:
        """Reads what `save` wrote.

        Raises:
          InputError: a file is missing, or a vocabulary has another length than was recorded.
        """
        try:
            return cls._read(folder)
        except FileNotFoundError as error:
            raise InputError(
                f"The folder must hold {STATISTICS} and {_VOCABULARIES}/, as `mmoe-ranker examples` writes them. "
                f"Received: {str(folder)!r} without {error.filename!r}."
            ) from None
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(
                f"The file {STATISTICS} in {str(folder)!r} must be as this version's `mmoe-ranker examples` writes it: "
                f"build the examples again. Received: {type(error).__name__} {error}."
            ) from None

    @classmethod
    def _read(cls, folder: Path) -> Statistics:
        document = json.loads((folder / STATISTICS).read_text(encoding="utf-8"))
        vocabularies = {
            # Bytes, because text mode would take a value of "\\r" for the end of a line.
            name: tuple((folder / _VOCABULARIES / f"{name}.txt").read_bytes().decode("utf-8").split("\n")[:-1])
            for name in document["vocabularies"]
        }
        for name, length in document["vocabularies"].items():
            if len(vocabularies[name]) != length:
                raise InputError(
                    f"The vocabulary of `{name}` in {str(folder)!r} must have the {length} values that "
                    f"{STATISTICS} records. Received: {len(vocabularies[name])}."
                )
        return cls(
            num_examples=document["num_examples"],
            numeric={
                name: NumericStatistics(**moments | {"quantiles": tuple(moments["quantiles"])})
                for name, moments in document["numeric"].items()
            },
            labels={name: LabelStatistics(**moments) for name, moments in document["labels"].items()},
            vocabularies=vocabularies,
        )
