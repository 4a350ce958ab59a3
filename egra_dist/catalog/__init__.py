"""What is known: schema, readers, features, synthetic data."""
