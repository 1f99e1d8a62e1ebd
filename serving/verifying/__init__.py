"""Verification of an exported version, in a process that knows neither TensorFlow's Python nor the model's code."""
