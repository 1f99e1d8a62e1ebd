"""How alike experts answer: experts that all say the same are one expert at the price of many.

Shapes: N impressions, E experts, U units of an expert's last layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError


def expert_similarity(answers: ArrayLike) -> NDArray[np.float64]:
    """Linear CKA of each pair of experts: how far one's answers are a rotation and scaling of the other's.

        CKA_ij = |X_i^T X_j|^2 / (|X_i^T X_i| |X_j^T X_j|),  X_i [N, U] the answers of expert i less their mean

    with Frobenius norms. See "Similarity of Neural Network Representations Revisited" by Kornblith et al., ICML 2019
    (https://arxiv.org/abs/1905.00414), eq. 1 and sec. 3.

    Args:
      answers: [N, E, U]; with no more impressions than units everything looks alike, so N should be several times U.

    Returns:
      [E, E], symmetric, 0 to 1, 1 where two experts say the same; NaN for an expert that answers all alike, or not with
      finite numbers alone, as in a training that diverges.

    Raises:
      InputError: on another shape.
    """
    given = np.asarray(answers, dtype=np.float64)
    if given.ndim != 3:
        raise InputError(f"`answers` must have the shape [N, E, U]. Received: {list(given.shape)}.")
    given = np.where(np.isfinite(given).all(axis=(0, 2), keepdims=True), given, 0.0)
    centred = (given - given.mean(axis=0)).transpose(1, 0, 2) if len(given) else given.transpose(1, 0, 2)
    together = np.square(np.einsum("inu,jnv->ijuv", centred, centred, optimize=True)).sum(axis=(2, 3))
    alone = np.sqrt(np.diagonal(together))
    scale = alone[:, None] * alone[None, :]
    return np.divide(together, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
