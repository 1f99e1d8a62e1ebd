"""AUC and PR-AUC of more rows than fit into memory: counts in fixed bins of the logit, with a bound on the error.

Rows are only counted, in batches of any size and order, so memory does not grow with them. Inside a bin the order is
not known; the bound is what any order could change, worked out from the counts, so it holds for every set of rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mmoe_ranker.metrics.classification import cross_entropies
from mmoe_ranker.metrics.rows import labelled_rows

NUM_BINS = 1 << 16
_LARGEST_LOGIT = 16.0  # beyond it, 1e-7 from 0 and 1, all is one bin
# Between probabilities, not logits: those of two probabilities may be rounded into the other order.
_EDGES = 1 / (1 + np.exp(-np.linspace(-_LARGEST_LOGIT, _LARGEST_LOGIT, NUM_BINS - 1)))


class Bounded(NamedTuple):
    """A value that the true one differs from by at most `error`; both NaN where it is not defined."""

    value: float
    error: float


class BinnedTotals:
    """Totals of one binary objective over any number of rows.

    Log loss, normalised entropy and the calibration ratio need sums alone and are exact.

    Example:
        >>> totals = BinnedTotals()
        >>> totals.update([1, 0, 1], [0.9, 0.2, 0.6])
        >>> totals.update([0], [0.7])
        >>> totals.auc()
        Bounded(value=0.75, error=0.0)
    """

    def __init__(self) -> None:
        self._positives = np.zeros(NUM_BINS, np.int64)  # by rising logit
        self._negatives = np.zeros(NUM_BINS, np.int64)
        self._loss = self._predicted = 0.0

    def update(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        """Adds rows.

        Args:
            labels: [N], 0, 1 or NaN.
            probabilities: [N], 0 to 1.

        Raises:
            InputError: on shapes that differ and values out of range.
        """
        names = ("labels", "probabilities", "groups")
        rows = labelled_rows(labels, probabilities, label_kind="binary", prediction_kind="probability", names=names)
        predicted = rows.predictions.astype(np.float64, copy=False)
        bins = np.searchsorted(_EDGES, predicted)
        positive = rows.labels == 1
        self._positives += np.bincount(bins[positive], minlength=NUM_BINS)
        self._negatives += np.bincount(bins[~positive], minlength=NUM_BINS)
        self._loss += float(cross_entropies(rows.labels, predicted).sum())
        self._predicted += float(predicted.sum())

    @property
    def labelled(self) -> int:
        """Number of rows that have a label."""
        return int(self._positives.sum() + self._negatives.sum())

    @property
    def mean_label(self) -> float:
        """Share of positives; NaN without rows."""
        return float(self._positives.sum()) / self.labelled if self.labelled else math.nan

    def log_loss(self) -> float:
        """As `log_loss`, exact."""
        return self._loss / self.labelled if self.labelled else math.nan

    def normalized_entropy(self) -> float:
        """As `normalized_entropy`, exact."""
        rate = self.mean_label
        if not 0 < rate < 1:
            return math.nan
        return self.log_loss() / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))

    def calibration_ratio(self) -> float:
        """As `calibration_ratio`, exact."""
        positives = int(self._positives.sum())
        return self._predicted / positives if positives else math.nan

    def auc(self) -> Bounded:
        """The area under the ROC curve: pairs of one bin count half, and could count 0 or 1.

        error = sum_b positives_b negatives_b / (2 positives negatives)
        """
        positives, negatives = self._positives.astype(np.float64), self._negatives.astype(np.float64)
        pairs = float(positives.sum() * negatives.sum())
        if not pairs:
            return Bounded(math.nan, math.nan)
        below = np.cumsum(negatives) - negatives
        undecided = float(positives @ negatives)
        return Bounded(float(positives @ below + undecided / 2) / pairs, undecided / 2 / pairs)

    def pr_auc(self) -> Bounded:
        """The area under the precision-recall curve: the middle of what the orders inside the bins allow.

        Of a bin with p positives and n negatives, after P positives and F negatives, no threshold has a precision above
        (P + p) / (P + p + F), and that of its j-th positive is at least (P + j) / (P + j + F + n).
        """
        p, n = self._positives[::-1].astype(np.float64), self._negatives[::-1].astype(np.float64)
        held = p > 0
        if not held.any():
            return Bounded(math.nan, math.nan)
        above, false = (np.cumsum(p) - p)[held], (np.cumsum(n) - n)[held]
        p, n = p[held], n[held]
        high = p * (above + p) / (above + p + false)
        # sum_j (P + j) / (P + j + D) = p - D sum_j 1 / (P + D + j), and that sum is at most log(1 + p / (P + D)).
        wrong = false + n
        low = p - wrong * np.log1p(np.divide(p, above + wrong, out=np.zeros_like(p), where=wrong > 0))
        lowest, highest = float(low.sum() / p.sum()), float(high.sum() / p.sum())
        return Bounded((lowest + highest) / 2, (highest - lowest) / 2)
