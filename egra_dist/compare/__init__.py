"""Runs side by side: what differs, how good they are, what they cost; read back from MLflow."""
