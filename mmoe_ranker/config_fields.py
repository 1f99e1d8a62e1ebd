"""What all sections of the config share: frozen objects that know their keys, names, fractions."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Fraction: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]


class Frozen(BaseModel):
    """A section: an unknown key is refused, and so are infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
