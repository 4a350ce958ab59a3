"""Train EGRA, a multimodal graph recommender, at the scale of industrial catalogues."""

__version__ = "0.1.0"
