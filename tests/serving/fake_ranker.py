"""A ranker without a network or a model, which answers the client's calls as a server of an export does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmoe_ranker.combined_score import combined_score, ranking_key
from serving.client import RankingClient
from serving.connection import AbsentModelError, RefusedError
from serving.protos import GetModelMetadataResponse, PredictRequest, PredictResponse, SignatureDefMap
from serving.served_signatures import ServedSignatures
from serving.tensor_codec import decode, encode_as_field, encode_numbers, encode_strings

OBJECTIVES = ("click", "like", "dismiss")
OFFSETS = (0.0, 0.25, 0.0)
COMPLEMENTS = (False, False, True)
WEIGHTS = (1.0, 0.5, 2.0)
ROWS = [(0.2, 0.5, 0.1), (0.9, 0.5, 0.2), (0.5, 0.5, 0.3), (0.4, 0.1, 0.1), (0.3, 0.1, 0.4)]


def request_of(rows: list[tuple[float, ...]]) -> dict[str, Any]:
    """Candidates `i0`, `i1`, ... for which the ranker predicts these rows."""
    candidates = [{"item": f"i{number}"} | dict(zip(OBJECTIVES, row, strict=True)) for number, row in enumerate(rows)]
    return {"context": {"user": "u"}, "candidates": candidates}


class FakeRanker:
    """Versions 1, 2, ... whose predictions are the candidate's features `click`, `like` and `dismiss` themselves.

    Takes the place of a client's `Connection`. `versions` says which version answers which Predict, the last one from
    then on. `weights`, `order` (of the objectives), features beside those and whether the contract tells the score are
    a version's own.
    """

    def __init__(self, form: str = "weighted_product", versions: tuple[int, ...] = (1,)) -> None:
        self.target = "fake:1"
        self.form = form
        self.versions = list(versions)
        self.weights = dict.fromkeys(versions, WEIGHTS)
        self.order = dict.fromkeys(versions, OBJECTIVES)
        self.more_features: dict[int, tuple[str, ...]] = dict.fromkeys(versions, ())
        self.explained = dict.fromkeys(versions, True)
        self.asked: list[int] = []  # candidates a Predict

    def client(self, **options: Any) -> RankingClient:
        client = RankingClient(self.target, **options)
        client.close()
        client._connection = self  # type: ignore[assignment]
        client._signatures = ServedSignatures(self, "ranker")  # type: ignore[arg-type]
        return client

    def close(self) -> None:
        pass

    def get_metadata(self, request: Any, deadline: Any) -> Any:
        version = self._version(request)
        signatures = SignatureDefMap()
        rank = signatures.signature_def["rank"]
        for name in (*OBJECTIVES, *self.more_features[version]):
            rank.inputs[name].dtype = 1
            rank.inputs[name].tensor_shape.dim.add(size=-1)
        rank.inputs["user"].dtype = 7
        rank.inputs["user"].tensor_shape.dim.add(size=1)
        weights = [dict(zip(OBJECTIVES, self.weights[version], strict=True))[name] for name in self.order[version]]
        rank.defaults["score_weights"].CopyFrom(encode_numbers(np.float32(weights)))
        for name in (*OBJECTIVES, "combined_score", "ranking"):
            rank.outputs[name].dtype = 1
        signatures.signature_def["contract"].outputs["contract"].dtype = 7
        response = GetModelMetadataResponse()
        response.metadata["signature_def"].value = signatures.SerializeToString()
        response.model_spec.version.value = version
        return response

    def predict(self, request: Any, deadline: Any) -> Any:
        if request.model_spec.signature_name == "contract":
            return self._contract(self._version(request))
        version = self._version(request)
        self.versions = self.versions[1:] or self.versions
        names = self.order[version]
        received = PredictRequest.FromString(request.SerializeToString())
        inputs = {name: decode(tensor) for name, tensor in received.inputs.items()}
        if inputs.keys() - {"score_weights"} != {"user", *OBJECTIVES, *self.more_features[version]}:
            raise RefusedError("Inputs contains invalid name, or lack one.")
        predictions = [inputs[name] for name in names]
        given = dict(zip(OBJECTIVES, zip(self.weights[version], OFFSETS, COMPLEMENTS, strict=True), strict=True))
        weights, offsets, complements = zip(*(given[name] for name in names), strict=True)
        arguments = (predictions, inputs.get("score_weights", np.float32(weights)), offsets, complements, self.form)
        self.asked.append(len(predictions[0]))
        response = PredictResponse()
        response.model_spec.version.value = version
        ranking = np.argsort(-ranking_key(*arguments), kind="stable").astype(np.int32)
        outputs = {"combined_score": combined_score(*arguments)} | dict(zip(names, predictions, strict=True))
        for name, values in outputs.items():
            assert values.dtype == np.float32
            response.outputs[name].CopyFrom(encode_as_field(1, values.shape, values))
        response.outputs["ranking"].CopyFrom(encode_as_field(3, ranking.shape, ranking))
        return response

    def _version(self, request: Any) -> int:
        if not request.model_spec.HasField("version"):
            return self.versions[0]
        version = request.model_spec.version.value
        if version not in self.versions:
            raise AbsentModelError(f"no version {version}")
        return version

    def _contract(self, version: int) -> Any:
        terms = {
            name: {"weight": weight, "offset": offset, "complement": complement}
            for name, weight, offset, complement in zip(
                OBJECTIVES, self.weights[version], OFFSETS, COMPLEMENTS, strict=True
            )
            if name in self.order[version]
        }
        contract = {
            "item_key": "item",
            "objectives": [{"name": name} for name in self.order[version]],
        } | ({"combined_score": {"form": self.form, "terms": terms}} if self.explained[version] else {})
        response = PredictResponse()
        response.outputs["contract"].CopyFrom(encode_strings([json.dumps(contract).encode()], ()))
        return response
