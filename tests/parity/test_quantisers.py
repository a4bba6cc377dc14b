"""Quantisers against vector-quantize-pytorch (1.32), dm-haiku and diffusers."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import vector_quantize_pytorch as vqp

from latents.bottlenecks import EMAVQ, FSQ, VQ, ResidualFSQ
from latents.bottlenecks.fsq import bound

LEVELS = [(5, 5, 5), (8, 6, 5), (7, 5, 5, 5)]


def samples(levels, spread=1.0, count=4000):
  return np.random.default_rng(0).normal(0, spread, (1, count, len(levels))).astype(np.float32)


def clear_of_borders(z, levels):
  """Whether every channel's bound is further than (L-1)/2 * 2e-3 from where rounding switches.

  The package multiplies the bound by 1 + 1e-3, the paper (and we) by 1 - 1e-3: codes may differ only inside.
  """
  b = np.asarray(bound(jnp.asarray(z), levels))
  return (np.abs(b - np.floor(b) - 0.5) > (np.array(levels) + 1) * 1.5e-3).all(-1)


@pytest.mark.parametrize("levels", LEVELS)
def test_fsq(levels):
  theirs, module, h = vqp.FSQ(list(levels)), FSQ(levels, project=False), samples(levels)
  torch_h = torch.from_numpy(h).requires_grad_()
  values, codes = theirs(torch_h)
  ours = module.apply({}, h, train=True)
  clear = clear_of_borders(h, levels)
  assert clear.mean() > 0.9
  np.testing.assert_array_equal(ours.codes[clear], codes.numpy()[clear])
  np.testing.assert_allclose(ours.z[clear], values.detach().numpy()[clear], atol=1e-6)
  assert (np.asarray(ours.codes) == codes.numpy()).mean() > 0.99
  every = torch.arange(module.vocab)
  np.testing.assert_allclose(
    module.apply({}, jnp.asarray(every.numpy()), method="embed"), theirs.indices_to_codes(every[None])[0], atol=1e-6
  )
  # with the paper's eps their bound is ours: the codes are then all equal
  paper = (theirs.bound(torch.from_numpy(h), eps=-1e-3)).detach()
  np.testing.assert_array_equal(ours.codes, theirs.codes_to_indices(paper))
  values.sum().backward()
  gradient = jax.grad(lambda h: module.apply({}, h, train=True).z.sum())(jnp.asarray(h))
  np.testing.assert_allclose(gradient, torch_h.grad, rtol=5e-3, atol=5e-3)  # (1 + 1e-3) / (1 - 1e-3), and the shift


@pytest.mark.parametrize("levels", [*LEVELS, (2, 3, 4)])
def test_residual_fsq(levels):
  stages, h = 3, samples(levels)
  theirs = vqp.ResidualFSQ(levels=list(levels), num_quantizers=stages, dim=len(levels))
  module = ResidualFSQ(levels, stages, project=False)
  values, codes = theirs(torch.from_numpy(h))
  ours = module.apply({}, h, train=True)
  assert ours.codes.shape == codes.shape
  same = (np.asarray(ours.codes) == codes.numpy()).all(-1)
  assert same.mean() > 0.999, same.mean()  # float32 next to a border
  np.testing.assert_allclose(ours.z[same], values.detach().numpy()[same], atol=1e-5)
  embedded = module.apply({}, jnp.asarray(codes.numpy(), jnp.int32), method="embed")
  np.testing.assert_allclose(embedded, theirs.get_output_from_indices(codes.long()), atol=1e-5)


def test_ema_codebook():
  vocab, dim = 12, 4
  theirs = vqp.VectorQuantize(
    dim=dim,
    codebook_size=vocab,
    decay=0.9,
    eps=1e-5,
    commitment_weight=1.0,
    rotation_trick=False,
    threshold_ema_dead_code=0,
    kmeans_init=False,
  ).train()
  rng = np.random.default_rng(1)
  start = rng.normal(size=(vocab, dim)).astype(np.float32)
  book = theirs._codebook
  with torch.no_grad():
    book.embed.copy_(torch.from_numpy(start)[None])
    book.embed_avg.copy_(torch.from_numpy(start)[None])
    book.cluster_size.fill_(1.0)
  module = EMAVQ(vocab=vocab, dim=dim, decay=0.9, project=False)
  state = {"codebook": {"embedding": start, "counts": np.ones(vocab, np.float32), "sums": start}}
  apply = jax.jit(lambda state, h: module.apply(state, h, train=True, mutable=["codebook"]))
  for step in range(20):
    h = rng.normal(0.3 * step, 1.0, (2, 20, dim)).astype(np.float32)
    torch_h = torch.from_numpy(h).requires_grad_()
    z, codes, loss = theirs(torch_h)
    latent, state = apply(state, h)
    np.testing.assert_array_equal(latent.codes, codes)
    np.testing.assert_allclose(latent.z, z.detach(), atol=1e-5)
    np.testing.assert_allclose(latent.terms["commit"], loss.detach().sum(), rtol=1e-5)
    ours = state["codebook"]
    np.testing.assert_allclose(ours["counts"], book.cluster_size[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours["sums"], book.embed_avg[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours["embedding"], book.embed[0], rtol=1e-4, atol=1e-4)


def test_codes_and_losses_are_haikus():
  vocab, dim = 10, 3
  net = hk.transform_with_state(lambda x: hk.nets.VectorQuantizerEMA(dim, vocab, 1.0, 0.99)(x, is_training=False))
  x = jax.random.normal(jax.random.key(0), (4, 5, dim))
  params, state = net.init(jax.random.key(1), x)
  theirs, _ = net.apply(params, state, None, x)
  rows = next(v["embeddings"] for v in state.values() if "embeddings" in v).T
  module = EMAVQ(vocab=vocab, dim=dim, project=False)
  ours = module.apply({"codebook": {"embedding": rows, "counts": jnp.ones(vocab), "sums": rows}}, x, train=True)
  np.testing.assert_array_equal(ours.codes, theirs["encoding_indices"])
  np.testing.assert_allclose(ours.z, theirs["quantize"], atol=1e-6)
  np.testing.assert_allclose(ours.terms["commit"], theirs["loss"], rtol=1e-5)
  np.testing.assert_allclose(ours.logs["perplexity"], theirs["perplexity"], rtol=1e-5)


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_gradients_of_a_nearest_code(learned, rotation):
  """Theirs has one loss for both, so its mean square gives the codebook and the encoder weight 1 each: beta 1."""
  vocab, dim = 12, 4
  theirs = vqp.VectorQuantize(
    dim=dim,
    codebook_size=vocab,
    commitment_weight=1.0,
    rotation_trick=rotation,
    learnable_codebook=learned,
    ema_update=not learned,
    threshold_ema_dead_code=0,
    kmeans_init=False,
  ).train()
  rng = np.random.default_rng(2)
  rows, h, pull = (rng.normal(size=s).astype(np.float32) for s in ((vocab, dim), (2, 20, dim), (2, 20, dim)))
  with torch.no_grad():
    theirs._codebook.embed.copy_(torch.from_numpy(rows)[None])
  torch_h = torch.from_numpy(h).requires_grad_()
  z, codes, loss = theirs(torch_h)
  ((z * torch.from_numpy(pull)).sum() + loss.sum()).backward()
  gradient = "rotation" if rotation else "straight"
  if learned:
    module, variables = VQ(vocab, dim, project=False, gradient=gradient, beta=1.0), {"params": {"codebook": rows}}
  else:
    module = EMAVQ(vocab, dim, project=False, gradient=gradient)
    variables = {"codebook": {"embedding": rows, "counts": np.ones(vocab, np.float32), "sums": rows}}

  def objective(variables, h):
    latent = module.apply(variables, h, train=True)
    return (latent.z * pull).sum() + latent.terms["vq" if learned else "commit"], latent

  (of_book, of_h), latent = jax.grad(objective, (0, 1), has_aux=True)(variables, h)
  np.testing.assert_array_equal(latent.codes, codes)
  np.testing.assert_allclose(latent.z, z.detach(), atol=1e-5)
  if learned:  # their one square counts once, ours is the paper's two terms
    np.testing.assert_allclose(latent.terms["vq"], 2 * loss.detach().sum(), rtol=1e-5)
    np.testing.assert_allclose(of_book["params"]["codebook"], theirs._codebook.embed.grad[0], atol=1e-5)
  else:
    np.testing.assert_allclose(latent.terms["commit"], loss.detach().sum(), rtol=1e-5)
  np.testing.assert_allclose(of_h, torch_h.grad, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_learned_codebook_is_diffusers_and_haikus(legacy):
  from diffusers.models.autoencoders.vq_model import VectorQuantizer

  vocab, dim, beta = 10, 3, 0.25
  theirs = VectorQuantizer(vocab, dim, beta=beta, legacy=legacy)
  rng = np.random.default_rng(3)
  rows, h, pull = (rng.normal(size=s).astype(np.float32) for s in ((vocab, dim), (2, 4, 5, dim), (2, 4, 5, dim)))
  with torch.no_grad():
    theirs.embedding.weight.copy_(torch.from_numpy(rows))
  torch_h = torch.from_numpy(h).requires_grad_()
  z, loss, (_, _, codes) = theirs(torch_h.permute(0, 3, 1, 2))
  ((z.permute(0, 2, 3, 1) * torch.from_numpy(pull)).sum() + loss).backward()
  module = VQ(vocab, dim, project=False, beta=beta, legacy=legacy)

  def objective(rows, h):
    latent = module.apply({"params": {"codebook": rows}}, h, train=True)
    return (latent.z * pull).sum() + latent.terms["vq"], latent

  (of_rows, of_h), latent = jax.grad(objective, (0, 1), has_aux=True)(rows, h)
  np.testing.assert_array_equal(latent.codes.reshape(-1), codes.reshape(-1))
  np.testing.assert_allclose(latent.z, z.detach().permute(0, 2, 3, 1), atol=1e-5)
  np.testing.assert_allclose(latent.terms["vq"], loss.detach(), rtol=1e-5)
  np.testing.assert_allclose(of_rows, theirs.embedding.weight.grad, atol=1e-5)
  np.testing.assert_allclose(of_h, torch_h.grad, atol=1e-5)
  if not legacy:
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.VectorQuantizer(dim, vocab, beta)(x, is_training=True)))
    params = jax.tree.map(lambda _: rows.T, net.init(jax.random.key(0), h))
    out = net.apply(params, h)
    np.testing.assert_array_equal(latent.codes, out["encoding_indices"])
    np.testing.assert_allclose(latent.terms["vq"], out["loss"], rtol=1e-5)
