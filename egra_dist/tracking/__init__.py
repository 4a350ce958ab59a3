"""What is recorded: MLflow, progress, figures."""
