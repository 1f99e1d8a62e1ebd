"""`check`: the logs held against the config, measured, judged and told, before anyone trains."""
