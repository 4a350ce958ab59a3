"""Turns what items say and look like into features: texts and images through encoders."""
