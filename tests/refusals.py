"""What a config is refused for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError


def refusal(config_file: Path, *overrides: str) -> str:
    """The message with which a config file is refused under these overrides."""
    with pytest.raises(InputError) as error:
        load_config(config_file, overrides)
    return str(error.value)
