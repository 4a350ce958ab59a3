"""Searches settings: many trainings with different settings, judged on the validation split."""
