"""Beam pipelines: logs to examples, vocabularies and statistics. Nothing here needs TensorFlow."""

from __future__ import annotations

import logging


def _matters(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("apitools not found")


# Beam says at import that Google's API client is absent, which concerns nobody but users of BigQuery.
logging.getLogger().addFilter(_matters)
