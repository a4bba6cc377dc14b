"""What an encoder measures beside z: EnCodec's gain, in codes, caches and samples."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import FSQ, NoBottleneck
from latents.data import CachedLatents, batches, write_cache
from latents.decoders import Gained, IdentityDecoder, WaveDecoder
from latents.encoders import Gain, IdentityEncoder, WaveEncoder
from latents.errors import UserError
from latents.frozen import Frozen, from_batch, to_batch
from latents.types import Encoded, Latent
from tests.test_encoders_decoders import started

KEY = jax.random.key(0)


def codec() -> tuple[Frozen, dict]:
  """A small codec with volume normalisation, and its arrays."""
  model = Autoencoder(
    encoder=Gain(WaveEncoder(ch=4, strides=(2, 2), out=6)),
    bottleneck=FSQ(levels=(5, 5, 5)),
    decoder=Gained(WaveDecoder(ch=4, strides=(2, 2), channels=2)),
  )
  variables = started(model, jnp.zeros((1, 32, 2)), train=True)
  return Frozen(model), {"variables": variables, "mean": np.float32(0), "std": np.float32(1)}


FROZEN, ARRAYS = codec()
X = np.random.default_rng(0).normal(size=(3, 32, 2)).astype(np.float32)


def decoded(x, latent=None):
  latent = FROZEN.encode(ARRAYS, x, key=KEY, train=False) if latent is None else latent
  return FROZEN.decode(ARRAYS, latent, key=KEY)


def test_a_louder_signal_has_the_same_codes_and_a_louder_decoding():
  one, other = (FROZEN.encode(ARRAYS, a * X, key=KEY, train=False) for a in (1.0, 0.125))
  np.testing.assert_array_equal(one.codes, other.codes)
  np.testing.assert_allclose(one.side["gain"][:, 0], np.sqrt((X.mean(-1) ** 2).mean(1)), rtol=1e-5)
  np.testing.assert_allclose(decoded(0.125 * X), 0.125 * decoded(X), rtol=1e-5)
  assert np.abs(decoded(X)).max() > 0.01
  assert np.isfinite(decoded(0 * X)).all()  # silence


def test_the_identity_is_exact_and_training_is_in_the_signals_units():
  model = Autoencoder(encoder=Gain(IdentityEncoder()), bottleneck=NoBottleneck(), decoder=Gained(IdentityDecoder()))
  latent, made = model.apply({}, X, train=True)
  np.testing.assert_allclose(made.x, X, rtol=1e-6)
  np.testing.assert_allclose(np.sqrt((latent.z.mean(-1) ** 2).mean(1)), 1, rtol=1e-5)
  assert FROZEN.autoencoder.last("encoder")[:3] == ("encoder", "inner", "conv_out")


def test_a_cache_keeps_the_side_beside_the_codes(tmp_path):
  """Written, read, batched and recalled: the decoding is that of the signal itself, to the bit."""
  online = FROZEN.encode(ARRAYS, X, key=KEY, train=False)
  stored = FROZEN.store(ARRAYS, X)
  rows = {name: np.stack([a, a], 1) for name, a in to_batch(stored).items()}
  assert set(rows) == {"stored", "side/gain"}
  write_cache(str(tmp_path), [rows], split="train", count=3, fingerprint="f", statistics={})
  source = CachedLatents(str(tmp_path), "f")
  assert source.keys == ("stored", "side/gain") and source.kept["side/gain"] == ((1,), np.dtype("float32"))
  with batches(source, split="train", batch=3, seed=0) as stream:
    batch = next(stream)
  found = FROZEN.recall(ARRAYS, from_batch(batch), key=KEY, train=True)
  order = batch["index"]
  np.testing.assert_array_equal(found.codes, online.codes[order])
  np.testing.assert_array_equal(found.side["gain"], online.side["gain"][order])
  np.testing.assert_array_equal(
    decoded(None, found), decoded(None, jax.tree.map(lambda a: a[order], online.replace(logs={})))
  )


def test_what_a_cache_says_of_a_side_is_checked(tmp_path):
  rows = {"stored": np.zeros((2, 2, 3)), "side/gain": np.ones((2, 2, 1))}
  write_cache(str(tmp_path), [rows], split="train", count=2, fingerprint="f", statistics={})
  path = tmp_path / "train" / "manifest.json"
  manifest = json.loads(path.read_text())
  good = {"shape": [1], "dtype": "float32"}
  wrong = [{"side/gain": good | change} for change in ({"shape": [-1]}, {"shape": 1}, {"dtype": "O"})]
  for side in ([], {"side/../x": good}, {"gain": good}, {"side/gain": 3}, *wrong):
    path.write_text(json.dumps(manifest | {"side": side}))
    with pytest.raises(UserError, match="not a manifest"):
      _ = CachedLatents(str(tmp_path)).keys
  with pytest.raises(UserError, match="not finite"):
    write_cache(str(tmp_path), [rows | {"side/gain": np.full((2, 2, 1), np.nan)}],
                split="train", count=2, fingerprint="f", statistics={})  # fmt: skip


def test_a_latent_without_the_side_that_its_decoder_reads_is_one_line():
  latent = Latent(codes=jnp.zeros((2, 8), jnp.int32))
  with pytest.raises(UserError, match="side 'gain', which this latent lacks"):
    decoded(None, latent)
  assert np.isfinite(decoded(None, latent.replace(side={"gain": jnp.ones((2, 1))}))).all()


def test_a_store_without_a_side_is_the_array_itself():
  assert from_batch({"stored": X, "label": X}) is X and to_batch(X) == {"stored": X}
  again = from_batch(to_batch(Encoded(h=X, side={"gain": X[:, :1, 0]})))
  assert isinstance(again, Encoded) and again.h is X
