"""How good it is: full ranking, metrics, shallow baselines."""
