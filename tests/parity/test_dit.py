"""DiT against diffusers' DiTTransformer2DModel with the same random weights.

Two differences are set aside: diffusers spaces the time frequencies by half - 1 (the original by half), so its
`downscale_freq_shift` is set to 0; and it keeps a copy of the time and label embeddings in every block.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import DiTTransformer2DModel

from latents.backbones import DiT

WIDTH, HEADS, DEPTH, CLASSES, GRID = 32, 4, 3, 10, 8


def reference() -> DiTTransformer2DModel:
  torch.manual_seed(0)
  net = DiTTransformer2DModel(
    num_attention_heads=HEADS,
    attention_head_dim=WIDTH // HEADS,
    in_channels=4,
    out_channels=8,
    num_layers=DEPTH,
    sample_size=GRID,
    patch_size=2,
    num_embeds_ada_norm=CLASSES,
    norm_eps=1e-6,
  ).eval()
  with torch.no_grad():
    for parameter in net.parameters():
      parameter.normal_(0, 0.1)
  first = net.transformer_blocks[0].norm1.emb
  for block in net.transformer_blocks:
    block.norm1.emb.load_state_dict(first.state_dict())
    block.norm1.emb.time_proj.downscale_freq_shift = 0
  return net


def dense(layer: torch.nn.Linear) -> dict:
  return {"kernel": layer.weight.detach().numpy().T, "bias": layer.bias.detach().numpy()}


def ours(net: DiTTransformer2DModel) -> dict:
  emb, patch = net.transformer_blocks[0].norm1.emb, net.pos_embed.proj
  params = {
    # the reference's patch order is (C p q), ours (p q C)
    "embed": {
      "kernel": patch.weight.detach().numpy().transpose(2, 3, 1, 0).reshape(-1, WIDTH),
      "bias": patch.bias.detach().numpy(),
    },
    "time": {"fc1": dense(emb.timestep_embedder.linear_1), "fc2": dense(emb.timestep_embedder.linear_2)},
    "label": {"embedding": emb.class_embedder.embedding_table.weight.detach().numpy()},
    "final_modulation": dense(net.proj_out_1),
    "final": dense(net.proj_out_2),
  }
  for i, block in enumerate(net.transformer_blocks):
    qkv = [dense(layer) for layer in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)]
    params[f"blocks_{i}"] = {
      "modulation": dense(block.norm1.linear),
      "attention": {
        "qkv": {name: np.concatenate([part[name] for part in qkv], -1) for name in ("kernel", "bias")},
        "out": dense(block.attn1.to_out[0]),
      },
      "mlp": {"fc1": dense(block.ff.net[0].proj), "fc2": dense(block.ff.net[2])},
    }
  return {"params": params}


def test_outputs_agree():
  net, model = reference(), DiT(DEPTH, WIDTH, HEADS, classes=CLASSES, out=8)
  x = np.random.default_rng(0).normal(size=(3, GRID, GRID, 4)).astype(np.float32)
  steps, label = np.array([0, 250, 999]), np.array([0, 9, CLASSES])  # the last is the null label
  shapes = jax.eval_shape(model.init, jax.random.key(0), x, steps / 1000, {"label": label})
  params = ours(net)
  assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
  with torch.no_grad():
    expected = net(
      torch.from_numpy(x.transpose(0, 3, 1, 2)),
      timestep=torch.from_numpy(steps),
      class_labels=torch.from_numpy(label),
    ).sample
  got = jax.jit(model.apply)(params, x, jnp.asarray(steps / 1000, jnp.float32), {"label": label})
  assert np.abs(expected.numpy()).max() > 0.1
  assert np.abs(np.asarray(got).transpose(0, 3, 1, 2) - expected.numpy()).max() <= 2e-5
