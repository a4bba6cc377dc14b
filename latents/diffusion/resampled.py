"""Times of training by importance: iDDPM (Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.3, eq. 18)."""

import dataclasses

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array

Held = dict[str, Array]  # "seen" [count] int32, how often a step was drawn; "square" [count], of its loss, on average


@dataclasses.dataclass(frozen=True)
class Resampled:
  """Step t of 1..count is drawn with a chance p_t in proportion to sqrt(E[L_t^2]), and its loss weighs 1 / (count p_t):
  the same objective as under `Steps`, with less variance.

  The average moves by 1 - decay with each loss (the paper's is over the last ten); `even` of all chance is uniform. All
  of it is until each step has been drawn `first` times. Who draws so holds `Held` and lets it follow the losses;
  called like other times, these are those of `Steps`. UserError unless 0 <= decay < 1 and 0 < even <= 1.
  """

  count: int = 1000
  decay: float = 0.9
  even: float = 0.001
  first: int = 10

  def __post_init__(self) -> None:
    if not (0 <= self.decay < 1 and 0 < self.even <= 1 and self.count > 0):
      raise UserError(f"{self}: decay is in [0, 1), even in (0, 1], count above 0")

  def __call__(self, key: Array, batch: int) -> Array:
    """[batch] times in (0,1], all alike."""
    return self.draw(key, batch, self.start())[0] / self.count

  def start(self) -> Held:
    """What is held before anything was drawn."""
    return {"seen": jnp.zeros(self.count, jnp.int32), "square": jnp.zeros(self.count)}

  def chances(self, held: Held) -> Array:
    """[count] of the steps 1..count."""
    size = jnp.sqrt(held["square"])
    known = (held["seen"] >= self.first).all() & (size.sum() > 0)
    by_loss = (1 - self.even) * size / jnp.maximum(size.sum(), 1e-30) + self.even / self.count
    return jnp.where(known, by_loss, 1 / self.count)

  def draw(self, key: Array, batch: int, held: Held) -> tuple[Array, Array]:
    """[batch] int32 steps, and the weights of their losses, 1 on average."""
    chances = self.chances(held)
    drawn = jax.random.choice(key, self.count, (batch,), p=chances)
    return drawn + 1, 1 / (self.count * chances[drawn])

  def follow(self, held: Held, number: Array, loss: Array) -> Held:
    """number [B], loss [B] without its weight -> what is held after them; several of one step count as their mean."""
    loss = jax.lax.stop_gradient(loss)
    drawn = jnp.zeros(self.count, jnp.int32).at[number - 1].add(1)
    square = jnp.zeros(self.count).at[number - 1].add(loss**2) / jnp.maximum(drawn, 1)
    keep = jnp.where(held["seen"] > 0, self.decay**drawn, (drawn == 0).astype(jnp.float32))
    return {"seen": held["seen"] + drawn, "square": keep * held["square"] + (1 - keep) * square}
