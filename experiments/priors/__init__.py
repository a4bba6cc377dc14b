"""Priors on one tokenizer."""
