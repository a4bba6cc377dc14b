"""Priors: what they are told, how they are trained."""
