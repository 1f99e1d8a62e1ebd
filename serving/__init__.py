"""Serving: an embedded PredictionService server, its client, and files that run TF Serving on an export."""
