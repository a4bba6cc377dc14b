"""Binary, symmetric and residual quantisers against vector-quantize-pytorch (1.32) and transformers' DAC."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import vector_quantize_pytorch as vqp

from latents.bottlenecks import BSQ, EMAVQ, FSQ, LFQ, VQ, ResidualVQ


def arrays(*shapes, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def reversed_bits(codes, bits):
  """Their first channel is an index's most significant bit, ours the least."""
  return sum((np.asarray(codes) >> i & 1) << (bits - 1 - i) for i in range(bits))


@pytest.mark.parametrize(("make", "bits", "groups"), [(LFQ, 4, 1), (LFQ, 7, 1), (LFQ, 6, 2), (BSQ, 4, 1), (BSQ, 7, 1)])
def test_binary(make, bits, groups):
  """No groups of BSQ: their sphere is each group's, the paper's is that of all bits. Their logarithm stops at 1e-5, so
  the temperature is one at which no probability is below. Of several codebooks they take the mean where we take the
  sum: entropy, in nats, is the token's."""
  share, temperature, gamma = bits // groups, 4.0, 0.8
  theirs = vqp.LFQ(
    codebook_size=2**share,
    num_codebooks=groups,
    spherical=make is BSQ,
    entropy_loss_weight=1.0,
    commitment_loss_weight=1.0,
    diversity_gamma=gamma,
  ).train()
  module = make(bits=bits, groups=groups, joint=share, temperature=temperature, diversity=gamma, project=False)
  h, pull = arrays((3, 20, bits), (3, 20, bits))
  torch_h = torch.from_numpy(h).requires_grad_()
  (z, codes, _), parts = theirs(torch_h, inv_temperature=1 / temperature, return_loss_breakdown=True)
  entropy = parts.per_sample_entropy - gamma * parts.batch_entropy
  (groups * entropy + parts.commitment + (z * torch.from_numpy(pull)).sum()).backward()

  def objective(h):
    latent = module.apply({}, h, train=True)
    return latent.terms["entropy"] + latent.terms["commit"] + (latent.z * pull).sum(), latent

  gradient, latent = jax.grad(objective, has_aux=True)(h)
  np.testing.assert_array_equal(reversed_bits(latent.codes, share), codes)
  np.testing.assert_allclose(latent.z, z.detach(), atol=1e-6)
  np.testing.assert_allclose(latent.terms["entropy"], groups * entropy.detach(), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(latent.terms["commit"], parts.commitment.detach(), rtol=1e-5)
  np.testing.assert_allclose(gradient, torch_h.grad, atol=1e-5)


@pytest.mark.parametrize("levels", [(2, 2), (8, 5, 4), (3, 6)])
def test_symmetric_fsq(levels):
  theirs, module = vqp.FSQ(list(levels), preserve_symmetry=True), FSQ(levels, project=False, symmetric=True)
  h, pull = arrays((1, 2000, len(levels)), (1, 2000, len(levels)))
  torch_h = torch.from_numpy(h).requires_grad_()
  z, codes = theirs(torch_h)
  (z * torch.from_numpy(pull)).sum().backward()
  ours = module.apply({}, h, train=True)
  near = ((np.tanh(h) + 1) * (np.array(levels) - 1) / 2 + 0.5) % 1  # float32 next to a border
  clear = ((near > 1e-5) & (near < 1 - 1e-5)).all(-1)
  np.testing.assert_array_equal(np.asarray(ours.codes)[clear], codes.numpy()[clear])
  np.testing.assert_allclose(np.asarray(ours.z)[clear], z.detach().numpy()[clear], atol=1e-6)
  gradient = jax.grad(lambda h: (module.apply({}, h, train=True).z * pull).sum())(jnp.asarray(h))
  np.testing.assert_allclose(gradient, torch_h.grad, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_residual_vq(shared):
  """Codes, values, losses, state over 20 steps. Two things are not theirs. They go straight through every stage, each
  of which passes the identity on, so that their z pulls at h G times; we follow SoundStream and EnCodec, once around
  the sum. A shared codebook of theirs decays G times a step, stage by stage; ours once, by all stages together, so that
  `decay` says the same for any G. There the state is only what each step begins from."""
  vocab, dim, stages, decay = 8, 3, 3, 0.9
  theirs = vqp.ResidualVQ(
    dim=dim,
    num_quantizers=stages,
    codebook_size=vocab,
    shared_codebook=shared,
    decay=decay,
    rotation_trick=False,
    threshold_ema_dead_code=0,
    kmeans_init=False,
  ).train()
  count = 1 if shared else stages
  books = arrays(*[(vocab, dim)] * count, seed=5)
  stage = EMAVQ(vocab=vocab, dim=dim, decay=decay, project=False)
  module = ResidualVQ(stage, quantizers=stages, shared=shared)
  state = {
    "codebook": {
      f"stages_{i}": {"embedding": rows, "counts": np.ones(vocab, np.float32), "sums": rows}
      for i, rows in enumerate(books)
    }
  }

  def put() -> None:
    with torch.no_grad():
      for i, layer in enumerate(theirs.layers):
        ours = state["codebook"][f"stages_{0 if shared else i}"]
        layer._codebook.embed.copy_(torch.from_numpy(np.array(ours["embedding"]))[None])
        layer._codebook.embed_avg.copy_(torch.from_numpy(np.array(ours["sums"]))[None])
        layer._codebook.cluster_size.copy_(torch.from_numpy(np.array(ours["counts"]))[None])

  put()
  for step in range(20):
    (h,) = arrays((2, 20, dim), seed=step)
    torch_h = torch.from_numpy(h).requires_grad_()
    z, codes, losses = theirs(torch_h)
    losses.sum().backward()
    old = state
    latent, state = module.apply(old, h, train=True, mutable=["codebook"])
    np.testing.assert_array_equal(latent.codes, codes)
    np.testing.assert_allclose(latent.z, z.detach(), atol=1e-5)
    np.testing.assert_allclose(latent.terms["commit"], losses.detach().sum(), rtol=1e-5)
    gradient = jax.grad(lambda h, old=old: module.apply(old, h, train=True).terms["commit"])(h)
    np.testing.assert_allclose(gradient, torch_h.grad, atol=1e-5)
    if shared:
      put()
      continue
    for i in range(count):
      book, ours = theirs.layers[i]._codebook, state["codebook"][f"stages_{i}"]
      np.testing.assert_allclose(ours["embedding"], book.embed[0], rtol=1e-4, atol=1e-5)
      np.testing.assert_allclose(ours["counts"], book.cluster_size[0], rtol=1e-5, atol=1e-6)


def test_factorised_residual_is_dacs():
  """Values, losses and their gradients to weights and codebooks. Not the gradient to h beyond the first stage: DAC's
  residual is not held fixed, so its later stages pull at h only through the ways down and up of the earlier ones."""
  from transformers import DacConfig
  from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer

  config = DacConfig(hidden_size=6, n_codebooks=3, codebook_size=10, codebook_dim=2, quantizer_dropout=0.0)
  config.hidden_size = 6
  theirs = DacResidualVectorQuantizer(config).eval()
  (h,) = arrays((2, 7, 6))
  module = ResidualVQ(VQ(vocab=10, dim=2, normalise="search"), quantizers=3, width=6)
  dense = lambda conv: {"kernel": conv.weight.detach().numpy()[..., 0].T, "bias": conv.bias.detach().numpy()}
  params = {}
  for i, q in enumerate(theirs.quantizers):
    params[f"stages_{i}"] = {"projection": dense(q.in_proj), "codebook": q.codebook.weight.detach().numpy()}
    params[f"lifts_{i}"] = dense(q.out_proj)
  z, codes, _, commit, codebook = theirs(torch.from_numpy(h).permute(0, 2, 1))[:5]
  (commit * 0.25 + codebook).mean().backward()
  loss = lambda p: module.apply({"params": p}, h, train=True).terms["vq"]
  latent = module.apply({"params": params}, h, train=True)
  np.testing.assert_array_equal(latent.codes, codes.permute(0, 2, 1))
  np.testing.assert_allclose(latent.z, z.detach().permute(0, 2, 1), atol=1e-5)
  np.testing.assert_allclose(latent.terms["vq"], (commit * 0.25 + codebook).mean().detach(), rtol=1e-5)
  gradient = jax.grad(loss)(params)
  for i, q in enumerate(theirs.quantizers):
    np.testing.assert_allclose(gradient[f"stages_{i}"]["codebook"], q.codebook.weight.grad, atol=1e-5)
