"""Two-stage generative modelling: an autoencoder maps a signal to a latent, a prior models the latent."""

from typing import Any

__version__ = "0.1.0"


def load(run: Any, parts: Any = (), decoder: Any = None) -> Any:
  """The model of a finished run from its folder alone: see `latents.use.model.Model`.

  model = latents.load("runs/digits"); model.encode(x), .decode(latent), .reconstruct(x),
  .sample(labels=[0, 1, 2], seed=0, guidance=2.0); signals are [B,*S,C] float in [-1,1]. parts: classes of your own.
  decoder: another run of the same latents, whose decoder is used.
  """
  from latents.use import model  # here: `import latents` alone must not start jax

  return model.load(run, parts, decoder)
