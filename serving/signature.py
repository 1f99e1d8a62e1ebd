"""The `rank` signature as a client reads it from a server's metadata: inputs with side and kind, outputs, defaults.

The side shows in the shapes: a context feature has 1 as its first dimension, a candidate feature one that is left open.
The kind shows in the dtype and the number of dimensions:

| dtype | [1] or [N] | [1, L] or [N, L] |
|---|---|---|
| string | category; "" is missing | sequence of categories, padded with "" |
| int64 | category given as a number; -1 is missing | sequence of such, padded with -1 |
| float | number; NaN is missing | vector; zeros are missing |

`score_weights` [T] holds one weight an objective; its default says which weights the model was exported with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mmoe_ranker.errors import InputError
from serving.protos import DT_FLOAT, DT_INT64, DT_STRING
from serving.tensor_codec import Array, decode

Kind: TypeAlias = Literal["category", "integer category", "number", "sequence", "integer sequence", "vector"]

RANK = "rank"
SCORE_WEIGHTS = "score_weights"
COMBINED_SCORE = "combined_score"
RANKING = "ranking"
_KINDS: dict[tuple[int, int], Kind] = {
    (DT_STRING, 1): "category",
    (DT_INT64, 1): "integer category",
    (DT_FLOAT, 1): "number",
    (DT_STRING, 2): "sequence",
    (DT_INT64, 2): "integer sequence",
    (DT_FLOAT, 2): "vector",
}


@dataclass(frozen=True)
class ServedFeature:
    """One input of the signature; `size` is its second dimension, None where there is none or it is left open."""

    name: str
    kind: Kind
    size: int | None = None


@dataclass(frozen=True)
class RankSignature:
    """What one version of a ranker takes and returns.

    Attributes:
        version: The version that was asked.
        context: Features given once a request.
        candidates: Features given once a candidate.
        objectives: Names of the predictions, in the order of `score_weights`.
        default_weights: float32 [T], the weights that hold where a request has none; None where the model takes none.
        item_key: The candidate's key, where the model tells it.
    """

    version: int
    context: Sequence[ServedFeature]
    candidates: Sequence[ServedFeature]
    objectives: Sequence[str]
    default_weights: Array | None = field(default=None, compare=False)
    item_key: str | None = None

    @classmethod
    def from_signature_def(cls, signature: Any, version: int) -> RankSignature:
        """Reads a SignatureDef.

        The names of outputs come without an order, so that without a contract the objectives are taken in
        alphabetical order, which is the order that SavedModel itself gives to the outputs of a function.

        Raises:
            InputError: the signature is not one of a ranker.
        """
        for name in (COMBINED_SCORE, RANKING):
            if name not in signature.outputs:
                raise InputError(
                    f"The signature `{RANK}` of the served model must return `{COMBINED_SCORE}` and `{RANKING}`. "
                    f"Received: outputs {', '.join(sorted(signature.outputs))}."
                )
        context: list[ServedFeature] = []
        candidates: list[ServedFeature] = []
        for name in sorted(set(signature.inputs) - {SCORE_WEIGHTS}):
            feature, once = _served_feature(name, signature.inputs[name])
            (context if once else candidates).append(feature)
        if not candidates:
            raise InputError(
                f"The signature `{RANK}` of the served model must take at least one candidate feature, [N, ...]. "
                f"Received: inputs {', '.join(sorted(signature.inputs))}."
            )
        return cls(
            version=version,
            context=context,
            candidates=candidates,
            objectives=sorted(set(signature.outputs) - {COMBINED_SCORE, RANKING}),
            default_weights=decode(signature.defaults[SCORE_WEIGHTS]) if SCORE_WEIGHTS in signature.defaults else None,
        )


def _served_feature(name: str, info: Any) -> tuple[ServedFeature, bool]:
    shape = [dim.size for dim in info.tensor_shape.dim]
    kind = _KINDS.get((info.dtype, len(shape)))
    if kind is None or shape[0] not in (1, -1):
        raise InputError(
            f"Input `{name}` of the served signature `{RANK}` must be a string, int64 or float tensor of shape [1], "
            f"[N], [1, L] or [N, L]. Received: DataType {info.dtype} of shape {shape}."
        )
    size = shape[1] if len(shape) == 2 and shape[1] >= 0 else None
    return ServedFeature(name, kind, size), shape[0] == 1
