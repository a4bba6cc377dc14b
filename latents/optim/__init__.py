"""Optimisers as data: a frozen dataclass with `make(steps)` that gives the optax transformation."""

from latents.optim.adam import Adam

__all__ = ["Adam"]
