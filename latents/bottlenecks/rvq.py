"""Residual vector quantisation (SoundStream, Zeghidour et al. 2021, arXiv:2107.03312, algorithm 1)."""

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Discrete, check_codes, check_field, code_logs, pointwise
from latents.bottlenecks.nearest import NearestCode, through
from latents.bottlenecks.nested import check_stages, stage_prefixes, stages_kept
from latents.errors import UserError
from latents.types import Array, Latent


class ResidualVQ(Discrete):
  """[B,*s,E] -> z [B,*s,D], codes [B,*s,G] in [0,V): G = quantizers nearest codes, each of what those before left.

    r_0 = x,   q_i = the stage's row nearest to r_i,   r_{i+1} = r_i - sg(q_i),   z = sum_i q_i.
  stage: a stage as declared alone (EMAVQ or VQ); there are G like it, each with a codebook of its own. Its `gradient`
  is that of z to x, once around the sum: straight through, dz/dx is the identity (by stage it would be G of them).
  Its `project` is a 1x1 projection E -> D in front of the first stage.
  width: DAC's factorised codes (Kumar et al. 2023, arXiv:2306.06546): x is h, of `width` channels, every stage looks up
  its own projection of r_i to the stage's dim and leads its row up again, q_i = A_i e_k + b_i; D is width. The gradient
  goes through each stage's row then, and reaches A_i and the projections.
  shared: one stage G times over (RQ-VAE, Lee et al. 2022, arXiv:2203.01941); its averages move once a step, by all.
  dropout: the share of a training batch whose examples keep their first n ~ U{1..G} stages alone (rng "bottleneck").
  Those left out are -1 in the codes, and nothing in z, in the terms, in the averages and in the logs.
  A prefix of the codes is a coarser z: `embed(codes[..., :n])`.
  terms: the stage's, summed over the stages, each a mean over the whole batch. logs: usage, perplexity, means over the
  stages. variants, if dropout: the first G/4 and G/2 stages beside the whole.
  """

  stage: NearestCode
  quantizers: int = 8
  width: int | None = None
  shared: bool = False
  dropout: float = 0.0

  @property
  def vocab(self) -> int:
    """The codes of one stage."""
    return self.stage.vocab

  def setup(self) -> None:
    """Makes the projection in front, the stages and the ways up."""
    check_stages(self)
    check_field(self.stage, "dim", 1)
    if self.width is not None:
      check_field(self, "width", 1)
    factorised, count = self.width is not None, 1 if self.shared else self.quantizers
    if factorised and not self.stage.project:
      raise UserError("factorised codes (width) are projections of what is left: a stage with project=True")
    if not factorised and self.stage.project:
      self.projection = pointwise(self.stage.dim)
    self.stages = [self.stage.clone(name=None, project=factorised) for _ in range(count)]
    if factorised:
      self.lifts = [pointwise(self.width or 0) for _ in range(count)]

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; updates the codebooks if train and the collection "codebook" is mutable."""
    x = residual = self._start(h)
    keep = stages_kept(self, len(h), train)
    z, terms, looked, codes, gradient = jnp.zeros_like(x), {}, [], [], self.stage.gradient
    for i in range(self.quantizers):
      stage = self._stage(i)
      near = stage.before(residual)
      if stage.learning(train):
        stage.begin(near)
      found = stage.find(near)
      q = stage.embed(found)
      weight = None if keep is None else jnp.broadcast_to((keep > i).reshape(-1, *[1] * (found.ndim - 1)), found.shape)
      weight = None if weight is None else weight.astype(jnp.float32)
      terms = {name: terms.get(name, 0.0) + value for name, value in stage.losses(near, q, weight).items()}
      part = q if self.width is None else self._lift(i)(through(near, q, gradient))
      residual = residual - jax.lax.stop_gradient(part)
      z = z + (part if weight is None else part * weight[..., None])
      looked.append((near, found) if weight is None else (near, found, weight))
      codes.append(found)
    if self._stage(0).learning(train):
      for i, seen in enumerate([tuple(map(jnp.stack, zip(*looked, strict=True)))] if self.shared else looked):
        self._stage(i).learn(*seen)
    codes = jnp.stack(codes, -1)
    if keep is not None:
      kept = jnp.arange(self.quantizers) < keep.reshape(-1, *[1] * (codes.ndim - 1))
      codes = jnp.where(kept, codes, -1)
    logs = code_logs(codes, self.vocab, self.quantizers)
    return Latent(z=through(x, z, gradient) if self.width is None else z, codes=codes, terms=terms, logs=logs)

  def embed(self, codes: Array) -> Array:
    """codes [B,*s,n], n <= G: the first n stages -> z [B,*s,D]; -1 is a stage left out."""
    codes = check_codes(codes, self.vocab, least=-1)
    z = jnp.zeros((*codes.shape[:-1], self.width or self.stage.dim), jnp.float32)
    for i in range(codes.shape[-1]):
      q = self._stage(i).embed(jnp.maximum(codes[..., i], 0))
      part = q if self.width is None else self._lift(i)(q)
      z = z + jnp.where(codes[..., i, None] < 0, 0.0, part)
    return z

  def variants(self, latent: Latent) -> dict[str, Latent]:
    """{"": whole, "n stages": prefix}."""
    return stage_prefixes(self, latent)

  def _start(self, h: Array) -> Array:
    """[B,*s,E] -> x [B,*s,D] float32."""
    h = h.astype(jnp.float32)
    if self.width is None:
      return self.projection(h) if self.stage.project else h
    if h.shape[-1] != self.width:
      raise UserError(f"ResidualVQ(width={self.width}) got {h.shape[-1]} channels")
    return h

  def _stage(self, i: int) -> NearestCode:
    return self.stages[0 if self.shared else i]

  def _lift(self, i: int):
    return self.lifts[0 if self.shared else i]
