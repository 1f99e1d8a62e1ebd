"""A ranking client for any server that speaks TF Serving's gRPC protocol, without TensorFlow.

It reads from the server's metadata what the `rank` signature takes, and from the model's `contract` signature what
types and shapes do not say; checks a request against them before anything is sent; sends the context once; and returns
the candidates best first.

Example:
    client = RankingClient("localhost:8500")
    client.rank({"context": {"user_id": "u7"}, "candidates": [{"video_id": "v3"}, {"video_id": "v8"}]})
    # {"ranking": [{"video_id": "v8", "score": 0.31, "click": 0.4, ...}, {"video_id": "v3", ...}]}
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpc

from mmoe_ranker.errors import InputError
from serving.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from serving.request_encoding import encode_request, encode_score_weights
from serving.signature import COMBINED_SCORE, RANK, RANKING, SCORE_WEIGHTS, RankSignature
from serving.tensor_codec import Array, decode

_SERVICE = "tensorflow.serving.PredictionService"
_CONTRACT = "contract"
# Ranking changes nothing at the server, so a call that did not reach it may be made again.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": _SERVICE}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_OPTIONS = [
    # gRPC's default of 4 MB is less than the answer to a few hundred thousand candidates.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.service_config", _SERVICE_CONFIG),
]


class RankingError(RuntimeError):
    """The server failed or did not answer in time: nothing that another request would put right."""


class RankedListLog(Protocol):
    """Where the client leaves what it ranked; whoever implements it decides what is kept, and must not block."""

    def offer(
        self,
        context: Mapping[str, Any],
        candidates: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        order: Array,
        model_version: int,
        score_weights: Mapping[str, float],
    ) -> None:
        """Takes one ranked list; called once a request, after the answer and before `rank` returns.

        Args:
            context: Features of the request by name, as the caller gave them.
            candidates: N candidates as the caller gave them: features by name for each, or a column [N] a feature.
            order: Integers [N], rows of `candidates`, best first.
            model_version: The version that ranked.
            score_weights: The weights that held, by objective, the model's own included; empty where it takes none.
        """


class RankingClient:
    """Ranks candidates on one server; one object serves any number of threads."""

    def __init__(
        self,
        target: str,
        name: str = "ranker",
        timeout: float = 5.0,
        item_key: str | None = None,
        log: RankedListLog | None = None,
    ) -> None:
        """Prepares; nothing is sent before the first request.

        Args:
            target: The server's `host:port`.
            name: The name that the server gives the model.
            timeout: Seconds that one call may take, retries included.
            item_key: The candidates' key, by which results are named. By default what the served model's contract
                says; for a model without one, the first key of the first candidate.
            log: Is offered what was ranked.
        """
        self._target = target
        self._name = name
        self._timeout = timeout
        self._item_key = item_key
        self._log = log
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._predict = self._method("Predict", PredictRequest, PredictResponse)
        self._get_metadata = self._method("GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse)
        self._lock = threading.RLock()  # re-entered where reading the metadata itself fails
        self._signature: RankSignature | None = None

    @property
    def signature(self) -> RankSignature:
        """What the served model takes and returns; asked for once a version."""
        with self._lock:
            if self._signature is None:
                self._signature = self._fetch_signature()
            return self._signature

    def rank(self, request: Mapping[str, Any], score_weights: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Ranks the candidates of one request.

        Args:
            request: `{"context": {feature: value}, "candidates": [{feature: value}, ...]}`; None for a missing value.
            score_weights: Weights of the combined score by objective; an objective that is not named keeps the
                model's.

        Returns:
            `{"ranking": [{<item key>: ..., "score": combined score, <objective>: prediction, ...}, ...]}`, best first.

        Raises:
            InputError: the request does not fit the model, or the server or model cannot be found.
            RankingError: the server failed, or did not answer in time.
        """
        signature = self.signature
        item_key = self._item_key or signature.item_key
        message = PredictRequest()
        message.model_spec.name = self._name
        message.model_spec.signature_name = RANK
        for alias, tensor in encode_request(request, signature, item_key).items():
            message.inputs[alias].CopyFrom(tensor)
        weights = signature.default_weights
        if score_weights:
            message.inputs[SCORE_WEIGHTS].CopyFrom(encode_score_weights(score_weights, signature))
            weights = decode(message.inputs[SCORE_WEIGHTS])
        response = self._call(self._predict, message)
        if response.model_spec.version.value != signature.version:
            self._forget_signature()  # another version has taken over: its weights and features may be others
        candidates = request["candidates"]
        order = decode(response.outputs[RANKING])
        if self._log is not None:
            by_objective = {} if weights is None else dict(zip(signature.objectives, weights.tolist(), strict=True))
            version = response.model_spec.version.value
            self._log.offer(request["context"], candidates, order, version, by_objective)
        return {"ranking": _ranked(candidates, order, item_key or next(iter(candidates[0])), signature, response)}

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> RankingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _method(self, name: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(
            f"/{_SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def _fetch_signature(self) -> RankSignature:
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._name
        response = self._call(self._get_metadata, request)
        signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value).signature_def
        if RANK not in signatures:
            raise InputError(
                f"The served model `{self._name}` must have a signature `{RANK}`. "
                f"Received: signatures {', '.join(sorted(signatures))}."
            )
        signature = RankSignature.from_signature_def(signatures[RANK], response.model_spec.version.value)
        return self._with_contract(signature) if _CONTRACT in signatures else signature

    def _with_contract(self, signature: RankSignature) -> RankSignature:
        """Adds what types and shapes cannot tell: `item_key`, and the objectives in the order of `score_weights`."""
        request = PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.version.value = signature.version
        request.model_spec.signature_name = _CONTRACT
        contract = json.loads(decode(self._call(self._predict, request).outputs[_CONTRACT]).item())
        return dataclasses.replace(
            signature,
            item_key=contract["item_key"],
            objectives=[objective["name"] for objective in contract["objectives"]],
        )

    def _forget_signature(self) -> None:
        with self._lock:
            self._signature = None

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            # The lines below the first name nodes of the graph.
            code, details = error.code(), (error.details() or "no details").splitlines()[0].rstrip(".")
            if code is grpc.StatusCode.UNAVAILABLE:
                raise InputError(
                    f"No model server answers at the target ({details}). Received: {self._target}."
                ) from None
            if code is grpc.StatusCode.NOT_FOUND:
                raise InputError(
                    f"The server at {self._target} has no available model of this name ({details}). "
                    f"Received: {self._name}."
                ) from None
            if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
                self._forget_signature()  # the model may have changed since its metadata were read
                raise InputError(f"The server at {self._target} refused the request: {details}.") from None
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise RankingError(f"The server at {self._target} did not answer within {self._timeout} s.") from None
            raise RankingError(f"The server at {self._target} answered {code.name}: {details}.") from None


def _ranked(
    candidates: Any, order: Array, item_key: str, signature: RankSignature, response: Any
) -> list[dict[str, Any]]:
    scores = decode(response.outputs[COMBINED_SCORE]).tolist()
    predictions = {name: decode(response.outputs[name]).tolist() for name in signature.objectives}
    return [
        {
            item_key: candidates[row][item_key],
            "score": scores[row],
            **{name: values[row] for name, values in predictions.items()},
        }
        for row in order.tolist()
    ]
