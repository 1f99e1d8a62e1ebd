"""A ranking client for any server that speaks TF Serving's gRPC protocol, without TensorFlow.

It reads from the server's metadata what the `rank` signature takes, and from the model's `contract` signature what
types and shapes do not say; checks a request against them before anything is sent; sends the context once; and returns
the candidates best first.

Example:
    client = RankingClient("localhost:8500")
    client.rank({"context": {"user_id": "u7"}, "candidates": [{"video_id": "v3"}, {"video_id": "v8"}]})
    # {"ranking": [{"video_id": "v8", "score": 0.31, "click": 0.4, ...}, {"video_id": "v3", ...}]}
    client.rank_arrays({"context": {"user_id": "u7"}, "candidates": {"video_id": np.array(["v3", "v8"])}}).order
    # array([1, 0])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import grpc

from mmoe_ranker.errors import InputError
from serving.connection import Connection, Deadline, RankingError, RefusedError
from serving.protos import RankRequest
from serving.ranking import Ranking, read_ranking
from serving.request_columns import RequestColumns, request_columns
from serving.request_encoding import EncodedRequest, encode_request
from serving.served_signatures import ServedSignatures
from serving.signature import RANK, SCORE_WEIGHTS, RankSignature
from serving.tensor_codec import Array, write_numbers

__all__ = ["Ranking", "RankingClient", "RankingError"]

_CALLS_AT_ONCE = 4
_MOST_ROUNDS = 5  # of asking again because versions changed in between


class RankingLog(Protocol):
    """Where the client leaves what it ranked, such as a `RankedListLog`; decides what is kept, and must not block."""

    def offer(
        self,
        context: Mapping[str, Any],
        candidates: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        order: Array,
        model_version: int,
        score_weights: Mapping[str, float],
        request_id: str | None,
    ) -> str:
        """Takes one ranked list; called once a request, after the answer and before `rank` returns.

        Args:
            context: Features of the request by name, as the caller gave them.
            candidates: N candidates as the caller gave them: features by name for each, or a column [N] a feature.
            order: Integers [N], rows of `candidates`, best first.
            model_version: The version that ranked.
            score_weights: The weights that held, by objective, the model's own included; empty where it takes none.
            request_id: The caller's, if there is one.

        Returns:
            The request's id, by which feedback names it: the caller's, or one made up.
        """


class RankingClient:
    """Ranks candidates on one server; one object serves any number of threads."""

    def __init__(
        self,
        target: str,
        name: str = "ranker",
        timeout: float = 5.0,
        item_key: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        max_candidates: int | None = None,
        retry_exhausted: bool = False,
        log: RankingLog | None = None,
    ) -> None:
        """Prepares; nothing is sent before the first request.

        Args:
            target: The server's `host:port`.
            name: The name that the server gives the model.
            timeout: Seconds that one request may take, all its calls and their retries included.
            item_key: The candidates' key, by which results are named. By default what the served model's contract
                says; for a model without one, the first key of the first candidate.
            credentials: TLS (`serving.tls.channel_credentials`); None for no encryption.
            max_candidates: More candidates than that are sent in several calls, some at a time, and ranked together.
            retry_exhausted: Tries again also where the server answers RESOURCE_EXHAUSTED; see `serving.connection`.
            log: Is offered what was ranked.

        Raises:
            InputError: `max_candidates` is not positive.
        """
        if max_candidates is not None and max_candidates < 1:
            raise InputError(f"`max_candidates` must be at least 1, or None. Received: {max_candidates!r}.")
        self._name = name
        self._timeout = timeout
        self._item_key = item_key
        self._max_candidates = max_candidates
        self._log = log
        self._connection = Connection(target, credentials, retry_exhausted)
        self._signatures = ServedSignatures(self._connection, name)

    @property
    def signature(self) -> RankSignature:
        """What the served model takes and returns; asked for once a version."""
        return self._signatures.current(Deadline(self._timeout))

    def rank(
        self,
        request: Mapping[str, Any],
        score_weights: Mapping[str, float] | None = None,
        explain: bool = False,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Ranks the candidates of one request; `rank_arrays` as plain Python values.

        Returns:
            `{"ranking": [{<item key>: ..., "score": combined score, <objective>: prediction, ...}, ...]}`, best first;
            with `"contributions": {<objective>: ...}` in each under `explain`, and `"request_id"` where there is a log.
        """
        return self.rank_arrays(request, score_weights, explain, request_id).as_dict()

    def rank_arrays(
        self,
        request: Mapping[str, Any],
        score_weights: Mapping[str, float] | None = None,
        explain: bool = False,
        request_id: str | None = None,
    ) -> Ranking:
        """Ranks the candidates of one request.

        Args:
            request: `{"context": {feature: value}, "candidates": ...}`. Candidates are a list of
                `{feature: value}`, a mapping `{feature: column}` of numpy arrays or lists, or a pandas DataFrame. A
                value that is missing is None, NaN, or pandas' NA.
            score_weights: Weights of the combined score by objective; an objective that is not named keeps the
                model's.
            explain: Adds each objective's contribution to the score.
            request_id: By which feedback will name the request, for the log; by default it makes one up.

        Raises:
            InputError: the request does not fit the model, or the server or model cannot be found.
            RankingError: the server failed, or did not answer in time.
        """
        deadline = Deadline(self._timeout)
        signature = self._signatures.current(deadline)
        renewed = False
        for _ in range(_MOST_ROUNDS):
            try:
                columns, weights, encoded = self._prepare(request, score_weights, explain, signature)
            except InputError as error:
                if renewed:
                    raise
                signature, renewed = self._successor(signature, error, deadline), True
                continue
            try:
                responses = self._ask(encoded, columns.size, weights if score_weights else None, deadline)
            except RefusedError as error:
                signature, renewed = self._successor(signature, error, deadline), True
                continue
            version = responses[0].model_spec.version.value
            answered = self._signatures.of(version, deadline)
            if answered.version == version and _reads_alike(signature, answered, bool(score_weights), explain):
                weights = weights if score_weights else answered.default_weights
                ids = columns.candidates[columns.item_key]
                ranking = read_ranking(
                    responses,
                    self._max_candidates or columns.size,
                    answered,
                    weights,
                    columns.item_key,
                    ids,
                    explain,
                )
                if self._log is not None:
                    logged_as = self._log.offer(
                        columns.context, columns.given, ranking.order, ranking.version, ranking.weights, request_id
                    )
                    return replace(ranking, request_id=logged_as)
                return ranking
            signature = answered
        raise self._versions_change()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def __enter__(self) -> RankingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(
        self,
        request: Mapping[str, Any],
        score_weights: Mapping[str, float] | None,
        explain: bool,
        signature: RankSignature,
    ) -> tuple[RequestColumns, Array | None, EncodedRequest]:
        """What is sent to the version of `signature`; an InputError where the request does not fit it."""
        if explain and signature.combined_score is None:
            raise InputError(
                "`explain` needs a served model whose signature `contract` tells what the score is made of. "
                f"Received: version {signature.version} of `{self._name}`, which does not."
            )
        columns = request_columns(request, signature, self._item_key or signature.item_key)
        weights = signature.resolve_weights(score_weights)
        return columns, weights, encode_request(columns, signature)

    def _successor(self, signature: RankSignature, error: InputError, deadline: Deadline) -> RankSignature:
        """The signature that has taken over from one that a request does not fit; raises `error` if none has."""
        served = self._signatures.renewed(signature, deadline)
        if served.version == signature.version:
            raise error
        return served

    def _ask(self, encoded: EncodedRequest, size: int, weights: Array | None, deadline: Deadline) -> list[Any]:
        """The answers to all chunks, of one version."""
        step = self._max_candidates or size

        def ask(start: int) -> Any:
            message = RankRequest()
            message.model_spec.name = self._name
            message.model_spec.signature_name = RANK
            encoded.write(message.inputs, start, min(start + step, size))
            if weights is not None:
                write_numbers(message.inputs[SCORE_WEIGHTS], weights)
            return self._connection.predict(message, deadline)

        if step >= size:
            return [ask(0)]
        starts = range(0, size, step)
        with ThreadPoolExecutor(min(_CALLS_AT_ONCE, len(starts))) as calls:
            answers = dict(zip(starts, calls.map(ask, starts), strict=True))
            for _ in range(_MOST_ROUNDS):
                newest = max(answer.model_spec.version.value for answer in answers.values())
                stale = [start for start, answer in answers.items() if answer.model_spec.version.value != newest]
                if not stale:
                    return list(answers.values())
                answers.update(zip(stale, calls.map(ask, stale), strict=True))
        raise self._versions_change()

    def _versions_change(self) -> RankingError:
        return RankingError(
            f"The server at {self._connection.target} answered with one version after the other of `{self._name}`, and "
            f"not {_MOST_ROUNDS} times with the same."
        )


def _reads_alike(asked: RankSignature, answered: RankSignature, own_weights: bool, explain: bool) -> bool:
    """Whether a request that was made for one version means the same to another, whose answer can be read as asked."""
    if asked is answered:
        return True
    if explain and answered.combined_score is None:
        return False
    if own_weights and asked.weights_by_objective(asked.default_weights) != answered.weights_by_objective(
        answered.default_weights
    ):
        return False
    return replace(asked, version=answered.version) == answered
