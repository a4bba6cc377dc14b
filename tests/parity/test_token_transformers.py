"""LlamaGen's transformer and taming's GPT beside the same networks in torch, written here from their equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latents import interop

RNG = np.random.default_rng


def llamagen_arrays(rng, vocab, width, depth, hidden, classes):
  draw = lambda *shape: (rng.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)
  arrays = {
    "cls_embedding.embedding_table.weight": draw(classes + 1, width),
    "tok_embeddings.weight": draw(vocab, width),
    "norm.weight": 1 + 0.1 * draw(width),
    "output.weight": draw(vocab, width),
  }
  for i in range(depth):
    arrays |= {
      f"layers.{i}.attention_norm.weight": 1 + draw(width),
      f"layers.{i}.ffn_norm.weight": 1 + draw(width),
      f"layers.{i}.attention.wqkv.weight": draw(3 * width, width),
      f"layers.{i}.attention.wo.weight": draw(width, width),
      f"layers.{i}.feed_forward.w1.weight": draw(hidden, width),
      f"layers.{i}.feed_forward.w3.weight": draw(hidden, width),
      f"layers.{i}.feed_forward.w2.weight": draw(width, hidden),
    }
  return arrays


def llamagen(arrays, tokens, label, heads, side):
  """Logits of all tokens: pairs of a head's numbers turn as complex numbers, the first half by the row of the grid and
  the second by the column; the class is at a place whose cosine and sine are both 0."""
  w = {name: torch.from_numpy(a) for name, a in arrays.items()}
  rms = lambda x, g: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * g
  x = torch.cat([w["cls_embedding.embedding_table.weight"][label][:, None], w["tok_embeddings.weight"][tokens]], 1)[
    :, :-1
  ]
  batch, length, width = x.shape
  size = width // heads
  rate = 10000.0 ** (-torch.arange(size // 4, dtype=torch.float64) / (size // 4))
  place = torch.arange(side * side)
  angle = torch.cat([(place // side)[:, None] * rate, (place % side)[:, None] * rate], 1)
  turn = torch.cat([torch.zeros(1, size // 2, dtype=torch.complex128), torch.exp(1j * angle)])[:length].to(
    torch.complex64
  )
  depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("layers."))
  for i in range(depth):
    at = f"layers.{i}."
    h = rms(x, w[at + "attention_norm.weight"]) @ w[at + "attention.wqkv.weight"].T
    q, k, v = (a.reshape(batch, length, heads, size) for a in h.split(width, -1))
    spun = []
    for a in (q, k):
      pairs = torch.view_as_complex(a.reshape(batch, length, heads, size // 2, 2).contiguous())
      spun.append(torch.view_as_real(pairs * turn[None, :, None]).reshape(a.shape))
    q, k, v = (a.transpose(1, 2) for a in (*spun, v))
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(size)
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
    x = x + h @ w[at + "attention.wo.weight"].T
    h = rms(x, w[at + "ffn_norm.weight"])
    up = F.silu(h @ w[at + "feed_forward.w1.weight"].T) * (h @ w[at + "feed_forward.w3.weight"].T)
    x = x + up @ w[at + "feed_forward.w2.weight"].T
  return rms(x, w["norm.weight"]) @ w["output.weight"].T


@pytest.mark.parametrize("seed", range(4))
def test_llamagen(seed):
  rng = RNG(seed)
  heads, depth, side = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(2, 5))
  width, vocab, classes = heads * int(rng.choice([8, 12, 16])), int(rng.integers(5, 40)), 3
  multiple = int(rng.choice([256, 32, 8]))
  hidden = -(-(8 * width // 3) // multiple) * multiple
  arrays = llamagen_arrays(rng, vocab, width, depth, hidden, classes)
  config = {"n_head": heads, "block_size": side * side}
  model, ours = interop.read("llamagen", arrays, config, "a file")
  tokens, label = rng.integers(0, vocab, (2, side * side)), rng.integers(0, classes + 1, 2)
  theirs = llamagen(arrays, torch.from_numpy(tokens), torch.from_numpy(label), heads, side).numpy()
  variables = nested(ours)
  cond = {"label": jnp.asarray(label, jnp.int32)}
  found = jax.jit(lambda t: model.apply(variables, t, cond))(jnp.asarray(tokens, jnp.int32))
  np.testing.assert_allclose(found, theirs, atol=1e-5 * max(1, np.abs(theirs).max()))
  back = interop.give("llamagen", ours)
  assert back.keys() == arrays.keys() and all(np.array_equal(back[n], arrays[n]) for n in arrays)


def taming_arrays(rng, vocab, width, depth, length):
  draw = lambda *shape: (rng.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)
  arrays = {"tok_emb.weight": draw(vocab, width), "pos_emb": draw(1, length, width), "head.weight": draw(vocab, width)}
  arrays |= {"ln_f.weight": 1 + draw(width), "ln_f.bias": draw(width)}
  for i in range(depth):
    for name in ("ln1", "ln2"):
      arrays |= {f"blocks.{i}.{name}.weight": 1 + draw(width), f"blocks.{i}.{name}.bias": draw(width)}
    for name in ("key", "query", "value", "proj"):
      arrays |= {f"blocks.{i}.attn.{name}.weight": draw(width, width), f"blocks.{i}.attn.{name}.bias": draw(width)}
    arrays[f"blocks.{i}.attn.mask"] = np.tril(np.ones((1, 1, length, length), np.float32))
    arrays |= {f"blocks.{i}.mlp.0.weight": draw(4 * width, width), f"blocks.{i}.mlp.0.bias": draw(4 * width)}
    arrays |= {f"blocks.{i}.mlp.2.weight": draw(width, 4 * width), f"blocks.{i}.mlp.2.bias": draw(width)}
  return arrays


def taming(arrays, read, heads):
  """Logits of the token after each that is read."""
  w = {name: torch.from_numpy(a) for name, a in arrays.items()}
  x = w["tok_emb.weight"][read] + w["pos_emb"][:, : read.shape[1]]
  batch, length, width = x.shape
  linear = lambda x, name: x @ w[name + ".weight"].T + w[name + ".bias"]
  normal = lambda x, name: F.layer_norm(x, (width,), w[name + ".weight"], w[name + ".bias"])
  for i in range(1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))):
    h = normal(x, f"blocks.{i}.ln1")
    q, k, v = (linear(h, f"blocks.{i}.attn.{n}").reshape(batch, length, heads, -1).transpose(1, 2)
               for n in ("query", "key", "value"))  # fmt: skip
    h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
    x = x + linear(h, f"blocks.{i}.attn.proj")
    x = x + linear(F.gelu(linear(normal(x, f"blocks.{i}.ln2"), f"blocks.{i}.mlp.0")), f"blocks.{i}.mlp.2")
  return normal(x, "ln_f") @ w["head.weight"].T


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wrapped", [False, True])
def test_taming(seed, wrapped):
  rng = RNG(seed)
  heads, depth, length, vocab = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(3, 10)), 11
  width, classes = heads * 8, int(rng.choice([0, 5]))
  arrays = taming_arrays(rng, vocab, width, depth, length)
  held = arrays
  if wrapped:  # as Net2NetTransformer keeps it, beside the tokenizer
    held = {f"transformer.{name}": a for name, a in arrays.items()} | {"first_stage_model.x": np.zeros(1, np.float32)}
  model, ours = interop.read("taming-gpt", held, {"n_head": heads, "classes": classes}, "a file")
  tokens = rng.integers(0, vocab, (2, length))
  label = rng.integers(0, classes, 2) if classes else np.zeros(2, int)
  read = np.concatenate([label[:, None], tokens[:, :-1]], 1)
  theirs = taming(arrays, torch.from_numpy(read), heads).numpy()
  variables = nested(ours)
  cond = {"label": jnp.asarray(label, jnp.int32)} if classes else None
  found = jax.jit(lambda t: model.apply(variables, t, cond))(jnp.asarray(tokens, jnp.int32))
  np.testing.assert_allclose(found, theirs, atol=1e-5 * max(1, np.abs(theirs).max()))
  back = interop.give("taming-gpt", ours)
  named = {name: a for name, a in arrays.items() if not name.endswith("mask")}
  assert back.keys() == named.keys() and all(np.array_equal(back[n], named[n]) for n in named)


def nested(ours):
  out: dict = {}
  for path, array in ours.items():
    *parts, last = path.split("/")
    node = out
    for part in parts:
      node = node.setdefault(part, {})
    node[last] = jnp.asarray(array)
  return {"params": out}
