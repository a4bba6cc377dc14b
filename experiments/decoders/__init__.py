"""Generative decoders."""
