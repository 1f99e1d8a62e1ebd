"""An outcome other than OK, with TF Serving's code and message, on its way from where it arose to the gRPC answer."""

from __future__ import annotations

import grpc

_MESSAGE_LIMIT = 1024
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """Carries a canonical status code and a message; TensorFlow's codes and gRPC's are the same numbers.

    Attributes:
        code: The gRPC code.
        message: The whole message; `details` is the part of it that is sent.
    """

    def __init__(self, code: grpc.StatusCode | int, message: str) -> None:
        super().__init__(message)
        self.code = _CODES.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else code
        self.message = message

    @property
    def number(self) -> int:
        """The code as a number, as `StatusProto.error_code` holds it."""
        return int(self.code.value[0])

    @property
    def details(self) -> str:
        """The message as TF Serving sends it: cut after 1024 bytes (grpc_status_util.cc)."""
        encoded = self.message.encode()
        if len(encoded) <= _MESSAGE_LIMIT:
            return self.message
        return encoded[:_MESSAGE_LIMIT].decode(errors="ignore") + "...TRUNCATED"

    def __str__(self) -> str:
        # absl::Status::ToString, which upstream prints for servables that failed to load.
        return f"{self.code.name}: {self.message}"
