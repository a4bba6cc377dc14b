"""Sampling in one to four steps."""
