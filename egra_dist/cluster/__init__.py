"""Where it runs: the Ray session, doctor."""
