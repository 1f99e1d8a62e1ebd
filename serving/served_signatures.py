"""What the served versions of a model take and return, asked for once a version.

A swap changes the version between two calls, and behind a load balancer two versions may answer in turn; so the last
few are kept. Another name, size or type of a feature is a matter of the version as well.
"""

from __future__ import annotations

import threading
from typing import Any

from mmoe_ranker.errors import InputError
from serving.connection import AbsentModelError, Connection, Deadline, RankingError
from serving.protos import GetModelMetadataRequest, PredictRequest, SignatureDefMap
from serving.signature import RANK, RankSignature
from serving.tensor_codec import TensorFormatError, decode

_CONTRACT = "contract"
_KEPT = 4


class ServedSignatures:
    """The signatures of one model on one server; one object serves any number of threads."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Prepares; nothing is sent before the first question.

        Args:
            connection: To the server.
            name: The name that the server gives the model.
        """
        self._connection = connection
        self._name = name
        self._lock = threading.Lock()
        self._known: dict[int, RankSignature] = {}
        self._current: RankSignature | None = None

    def current(self, deadline: Deadline) -> RankSignature:
        """That of the version that answered last; the served one's at first.

        Raises:
            InputError: there is no such server or model, or it is no ranker.
            RankingError: the server failed, or did not answer in time.
        """
        signature = self._current
        return signature if signature is not None else self.renewed(None, deadline)

    def renewed(self, old: RankSignature | None, deadline: Deadline) -> RankSignature:
        """That of the version that is served now; threads that hold the same old one ask once for all.

        Args:
            old: What the caller had, which another thread may have renewed in the meantime.
            deadline: Of the request that needs it.
        """
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise RankingError(f"The server at {self._connection.target} did not answer within {deadline.seconds} s.")
        try:
            if self._current is old or self._current is None:
                self._keep(self._fetch(None, deadline))
            assert self._current is not None
            return self._current
        finally:
            self._lock.release()

    def of(self, version: int, deadline: Deadline) -> RankSignature:
        """That of a version which has just answered, which becomes the current one.

        Where it has been dropped since, that of the version that is served now.
        """
        current = self._current
        if current is not None and current.version == version:
            return current
        known = self._known.get(version)
        if known is None:
            try:
                known = self._fetch(version, deadline)
            except AbsentModelError:
                return self.renewed(current, deadline)
        self._keep(known)
        return known

    def _keep(self, signature: RankSignature) -> None:
        kept = {version: known for version, known in self._known.items() if version != signature.version}
        # Bound at once, for threads that read.
        self._known = dict([*kept.items(), (signature.version, signature)][-_KEPT:])
        self._current = signature

    def _fetch(self, version: int | None, deadline: Deadline) -> RankSignature:
        found = self._metadata(version, deadline)
        try:
            return self._with_contract(*found, deadline)
        except AbsentModelError:  # dropped between the two calls
            if version is not None:
                raise
        return self._with_contract(*self._metadata(None, deadline), deadline)

    def _metadata(self, version: int | None, deadline: Deadline) -> tuple[RankSignature, bool]:
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._name
        if version is not None:
            request.model_spec.version.value = version
        response = self._connection.get_metadata(request, deadline)
        signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value).signature_def
        if RANK not in signatures:
            raise InputError(
                f"The served model `{self._name}` must have a signature `{RANK}`. "
                f"Received: signatures {', '.join(sorted(signatures))}."
            )
        signature = RankSignature.from_signature_def(signatures[RANK], response.model_spec.version.value)
        return signature, _CONTRACT in signatures

    def _with_contract(self, signature: RankSignature, has_contract: bool, deadline: Deadline) -> RankSignature:
        if not has_contract:
            return signature
        request: Any = PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.version.value = signature.version
        request.model_spec.signature_name = _CONTRACT
        response = self._connection.predict(request, deadline)
        try:
            contract = decode(response.outputs[_CONTRACT])
            received = f"{contract.size} of dtype {contract.dtype}"
        except TensorFormatError as error:
            contract, received = None, f"an output that cannot be read, {error}"
        if contract is None or contract.size != 1 or contract.dtype != object:
            raise InputError(
                f"The signature `{_CONTRACT}` of the served model must return one string, the model's contract. "
                f"Received: {received}."
            )
        return signature.with_contract(contract.item())
