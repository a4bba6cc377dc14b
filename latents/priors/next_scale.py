"""Token maps one scale after the other. VAR: Tian et al. 2024, arXiv:2404.02905."""

import jax
import jax.numpy as jnp

from latents.backbones.scale_transformer import ScaleTransformer
from latents.bottlenecks.multi_scale import MultiScaleVQ
from latents.errors import UserError
from latents.nn.streams import sample_keys
from latents.priors.autoregressive import choose
from latents.priors.base import Prior, drop, rows
from latents.types import Array, Cond, Latent, Terms, aside


class NextScale(Prior):
  """Reads latent.codes [B,N] of a `MultiScaleVQ`: scale k given those before, all its codes at once and, given those,
  independent; what is known of a place is what the scales before it make there (`MultiScaleVQ.inputs`).

  quantiser: the same as the autoencoder's, untrained here: its weights come from `Start(stage=the stage 1,
  source="bottleneck", into="quantiser")`, with `trained=("backbone",)`. UserError where its scales or codes are not the
  backbone's. label_drop: share of labels that become null in training. Sampling: guidance u + s_k (c - u) on logits,
  s_k = 1 + (s - 1) k / (K - 1) at scale k = 0..K-1 (the code's cfg is s - 1), 0 = no condition at all; then
  temperature, top_k, top_p as of `AutoregressivePrior`. One program, the scales written out, with keys and values kept.
  """

  backbone: ScaleTransformer
  quantiser: MultiScaleVQ
  label_drop: float = 0.1
  temperature: float = aside(1.0)
  top_k: int = aside(0)
  top_p: float = aside(1.0)
  guidance: float = aside(1.0)

  discrete = True
  likelihood = True
  prompts = True

  def _check(self, shape: tuple[int, ...]) -> None:
    known, made = self.backbone, self.quantiser
    if known.scales != made.scales or known.vocabs != made.vocab:
      raise UserError(
        f"the transformer models scales {known.scales} of {known.vocab} codes, but its quantiser has {made.scales} of "
        f"{made.stage.vocab}"
      )
    if shape != (known.length,):
      raise UserError(f"the transformer models {known.length} codes of {known.scales}, but a sample's are {shape}")

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"nll": nats a code, mean over batch and codes}."""
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    return {"nll": self._codes(latent, cond, train).mean()}

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """See `Prior.nll`."""
    return self._codes(latent, cond, False).sum(1)

  def _codes(self, latent: Latent, cond: Cond | None, train: bool) -> Array:
    """[B,N] nats of each code."""
    codes = latent.codes
    if codes is None:
      raise UserError("a prior over scales needs codes, but this bottleneck is continuous")
    if latent.mask is not None:
      raise UserError("a prior over scales models all codes of a latent: this one says that some are left out")
    self._check(codes.shape[1:])
    known = jax.lax.stop_gradient(self.quantiser.inputs(codes))
    chances = jax.nn.log_softmax(self.backbone(known, cond, train=train))
    return -jnp.take_along_axis(chances, codes[..., None], -1)[..., 0]

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1,
    prompt: Array | None = None,
  ) -> Latent:  # fmt: skip
    """See `Prior.sample`; codes [B,N]. Guidance runs both conditions as one batch of 2 B. What is given of a scale is
    told to the finer ones."""
    self._check(shape)
    batch = count if cond is None else rows(cond)
    told = self.guided(cond, guidance, batch)
    keys = sample_keys(self.make_rng("prior"), batch)
    z, past, codes, last = self.quantiser.empty(batch), None, [], len(self.backbone.scales) - 1
    for k in range(last + 1):
      logits, past = self.backbone.step(told.twice(self.quantiser.seen(z, k)), told.cond, k, past)
      logits = told.mixed(logits, 1 + (told.scale - 1) * (k / last if last else 1.0))
      now = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys)
      codes.append(choose(now, logits, self.temperature, self.top_k, self.top_p))
      if prompt is not None:
        first = sum(code.shape[1] for code in codes[:-1])
        given = prompt[:, first : first + codes[-1].shape[1]]
        codes[-1] = jnp.where(given < 0, codes[-1], given)
      z = self.quantiser.add(z, codes[-1], k)
    return Latent(codes=jnp.concatenate(codes, 1))
