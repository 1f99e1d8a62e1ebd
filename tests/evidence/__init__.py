"""Experiments behind the README's results table: `make evidence ONLY=position_bias`, one file an experiment."""
