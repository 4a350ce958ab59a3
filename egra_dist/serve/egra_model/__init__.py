"""What travels with an exported model: it imports numpy, pyarrow, faiss and MLflow, nothing of us.

In the model's folder this package stands alone, as ``egra_model``: hence the relative imports.
"""
