"""Latents off the grid: one-dimensional tokens."""
