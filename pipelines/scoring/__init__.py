"""`score`: examples or logs through an exported model, to predictions, combined scores and ranks."""
