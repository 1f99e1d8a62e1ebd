"""Position bias in a log and in a ranker: how large, whether it can be told from relevance, whether it is gone.

  rates          rate of an event at each position, by device (fig. 6)
  learned        what shallow towers learned of each position, over seeds (fig. 7)
  interventions  examination from one item at several positions
  em             examination by expectation-maximisation
  overlap        how many items stand at several positions (what `check` says of a log)
  confounding    how far the order that was shown follows relevance
  propensity     NDCG with clicks weighed by the inverse of their examination
  calibration    predictions against rates, position by position
  report         all of these on the predictions of one split, of its positioned_rows

Formulas are numpy on arrays; a label of NaN is missing, a position below 1 is unknown.
"""

from mmoe_ranker.position_bias.calibration import PositionCalibration, calibration_by_position
from mmoe_ranker.position_bias.confounding import OrderAgreement, order_agreement
from mmoe_ranker.position_bias.em import examination_by_prediction
from mmoe_ranker.position_bias.interventions import (
    Examination,
    Interventions,
    all_pairs,
    examination_of,
    natural_interventions,
)
from mmoe_ranker.position_bias.learned import learned_curves
from mmoe_ranker.position_bias.overlap import PositionOverlap, examination, identifiability
from mmoe_ranker.position_bias.propensity import InversePropensityNdcg, inverse_propensity_ndcg
from mmoe_ranker.position_bias.rates import PositionRates, rates_by_position
from mmoe_ranker.position_bias.report import position_bias_report

__all__ = [
    "Examination",
    "Interventions",
    "InversePropensityNdcg",
    "OrderAgreement",
    "PositionCalibration",
    "PositionOverlap",
    "PositionRates",
    "all_pairs",
    "calibration_by_position",
    "examination",
    "examination_by_prediction",
    "examination_of",
    "identifiability",
    "inverse_propensity_ndcg",
    "learned_curves",
    "natural_interventions",
    "order_agreement",
    "position_bias_report",
    "rates_by_position",
]
