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
from latents.interop.mapping import LINEAR, SAME, Table, Turn
from latents.train.state import nest

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


def patches(side: int) -> Turn:
  """Of the first layer: the reference's patch order is (C p q), ours (p q C)."""

  def give(w):
    return w.reshape(side, side, -1, w.shape[-1]).transpose(3, 2, 0, 1)

  return Turn(lambda w: w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0]), give)


TIME = "transformer_blocks.{n}.norm1.emb"
TABLE = Table.of(
  {
    "embed": ("pos_embed.proj", {"kernel": ("weight", patches(2)), "bias": ("bias", SAME)}),
    "time": (f"{TIME}.timestep_embedder", {"fc1": ("linear_1", LINEAR), "fc2": ("linear_2", LINEAR)}),
    "label": (f"{TIME}.class_embedder", {"embedding": ("embedding_table.weight", SAME)}),
    "blocks_{n}": (
      "transformer_blocks.{n}",
      {
        "modulation": ("norm1.linear", LINEAR),
        "attention": ("attn1", {"qkv": (("to_q", "to_k", "to_v"), LINEAR), "out": ("to_out.0", LINEAR)}),
        "mlp": ("ff", {"fc1": ("net.0.proj", LINEAR), "fc2": ("net.2", LINEAR)}),
      },
    ),
    "final_modulation": ("proj_out_1", LINEAR),
    "final": ("proj_out_2", LINEAR),
  },
  ignored=("pos_embed.pos_embed",),
)


def test_outputs_agree():
  net, model = reference(), DiT(DEPTH, WIDTH, HEADS, classes=CLASSES, out=8)
  x = np.random.default_rng(0).normal(size=(3, GRID, GRID, 4)).astype(np.float32)
  steps, label = np.array([0, 250, 999]), np.array([0, 9, CLASSES])  # the last is the null label
  shapes = jax.eval_shape(model.init, jax.random.key(0), x, steps / 1000, {"label": label})
  weights = {name: array.numpy() for name, array in net.state_dict().items()}
  ours = TABLE.take(weights, "DiT")
  back = TABLE.give(ours)
  assert all(np.array_equal(back[name], weights[name]) for name in back)
  assert back.keys() == weights.keys() - {"pos_embed.pos_embed"}
  params = {"params": nest(ours)}
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
