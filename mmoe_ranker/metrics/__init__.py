"""Offline metrics: pure functions on arrays, numpy only.

Everywhere a label of NaN is missing and its row is left out; a value that is not defined (no row, one class, no
positive) is NaN; ties are counted half or averaged, never broken by the order of the rows. What happens inside groups
returns a `GroupedMetric`: `.value`, `.groups_counted`, `.groups_total`, and each group's own value.
"""

from mmoe_ranker.metrics.agreement import rank_correlations, spearman
from mmoe_ranker.metrics.binned import BinnedTotals, Bounded
from mmoe_ranker.metrics.bootstrap import (
    Interval,
    PairedDifference,
    Statistic,
    bootstrap,
    bootstrap_interval,
    bootstrap_intervals,
    paired_bootstrap,
    replicates_for,
)
from mmoe_ranker.metrics.calibration import (
    ReliabilityCurve,
    calibration_ratio,
    expected_calibration_error,
    reliability_curve,
)
from mmoe_ranker.metrics.classification import auc, log_loss, normalized_entropy, pr_auc
from mmoe_ranker.metrics.expert_health import ExpertHealth, ExpertHealthTotals, expert_health
from mmoe_ranker.metrics.expert_similarity import expert_similarity
from mmoe_ranker.metrics.grouped import GroupedMetric, auc_within, group_auc
from mmoe_ranker.metrics.ranked_lists import RankedLists
from mmoe_ranker.metrics.ranking import mrr, ndcg, recall
from mmoe_ranker.metrics.regression import mae, rmse, xauc
from mmoe_ranker.metrics.resampling import ResampledAreas, SegmentSums, UnitSums, ratio
from mmoe_ranker.metrics.rows import group_codes
from mmoe_ranker.metrics.sorted_rows import SortedRows, dense_codes

__all__ = [
    "BinnedTotals",
    "Bounded",
    "ExpertHealth",
    "ExpertHealthTotals",
    "GroupedMetric",
    "Interval",
    "ReliabilityCurve",
    "auc",
    "auc_within",
    "bootstrap",
    "bootstrap_interval",
    "bootstrap_intervals",
    "replicates_for",
    "paired_bootstrap",
    "PairedDifference",
    "RankedLists",
    "ResampledAreas",
    "SortedRows",
    "dense_codes",
    "SegmentSums",
    "Statistic",
    "UnitSums",
    "rank_correlations",
    "ratio",
    "calibration_ratio",
    "expected_calibration_error",
    "expert_health",
    "expert_similarity",
    "group_auc",
    "group_codes",
    "log_loss",
    "mae",
    "mrr",
    "ndcg",
    "normalized_entropy",
    "pr_auc",
    "recall",
    "reliability_curve",
    "rmse",
    "spearman",
    "xauc",
]
