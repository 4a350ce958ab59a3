"""What MLflow shows of a finished stage in pictures and tables."""
