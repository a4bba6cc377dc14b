"""Parts for tokens: an encoder that looks them up, a decoder of logits, and their likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL
from latents.decoders import Categorical, ConvDecoder
from latents.encoders import ConvEncoder, Embedded
from latents.errors import UserError
from latents.losses import CrossEntropy
from latents.types import Latent, Seen
from tests.members.decoders import TOKEN_DECODERS
from tests.members.encoders import TOKEN_ENCODERS
from tests.members.losses import TOKEN_LOSSES

KEY = jax.random.key(0)


@pytest.mark.parametrize(("name", "make", "shape"), TOKEN_ENCODERS, ids=[m[0] for m in TOKEN_ENCODERS])
def test_token_encoders_tell_tokens_apart(name, make, shape):
  module, x = make(), jnp.arange(2 * shape[0]).reshape(2, *shape) % 5
  variables = jax.jit(lambda: module.init(KEY, x, train=True))()
  apply = jax.jit(lambda x: module.apply(variables, x, train=False))
  h = apply(x)
  assert h.shape[:2] == (2, shape[0] // module.stride) and np.isfinite(h).all()
  np.testing.assert_array_equal(h, apply(x.astype(jnp.float32)))  # as shapes are asked for
  assert np.abs(h - apply(x.at[:, 3].add(1))).max() > 0
  params = variables["params"]
  for part in module.last:
    params = params[part]
  assert params.shape[-1] == h.shape[-1]


@pytest.mark.parametrize(("name", "make", "latent", "shape", "vocab"), TOKEN_DECODERS)
def test_token_decoders_give_logits_in_training_and_tokens_else(name, make, latent, shape, vocab):
  module, z = make(), jax.random.normal(KEY, (2, *latent))
  x = jnp.zeros((2, *shape), jnp.int32)
  variables = jax.jit(lambda: module.init(KEY, Latent(z=z), x, train=True))()
  logits = module.apply(variables, Latent(z=z), x, train=False).x
  assert logits.shape == (2, *shape, vocab) and logits.dtype == jnp.float32
  decoded = module.apply(variables, Latent(z=z), method="sample")
  assert decoded.dtype == jnp.int32
  np.testing.assert_array_equal(decoded, np.argmax(logits, -1))
  params = variables["params"]
  for part in module.last:
    params = params[part]
  assert params.shape[-1] == vocab


@pytest.mark.parametrize(("name", "make", "shape", "vocab"), TOKEN_LOSSES)
def test_token_losses_are_means_over_batch_and_positions(name, make, shape, vocab):
  rng = np.random.default_rng(0)
  x, logits = jnp.asarray(rng.integers(0, vocab, (2, *shape))), jnp.asarray(rng.normal(size=(2, *shape, vocab)))
  loss = make()
  each = [float(loss(x[i : i + 1], logits[i : i + 1])) for i in range(2)]
  assert np.mean(each) == pytest.approx(float(loss(x, logits)), rel=1e-5)
  assert float(loss(x, 100.0 * jax.nn.one_hot(x, vocab))) == pytest.approx(0, abs=1e-6)
  assert np.isfinite(jax.grad(lambda y: loss(x, 1e4 * y))(logits)).all()


def test_cross_entropy_by_hand():
  x, logits = jnp.array([[0, 1]]), jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]]))
  seen = Seen(x, x, logits, None, None, None, {}, None)
  term = CrossEntropy().measure(seen, {}, aux=None, key=KEY)
  assert float(term.value) == pytest.approx(1.5 * np.log(2), rel=1e-6)  # ln 2 and ln 4
  assert float(term.logs["bits"]) == pytest.approx(1.5, rel=1e-6) and float(term.logs["accuracy"]) == 0.5


def test_cross_entropy_refuses_pictures():
  with pytest.raises(UserError, match="integers"):
    CrossEntropy()(jnp.zeros((1, 4, 3)), jnp.zeros((1, 4, 3)))


def test_a_text_autoencoder_learns_one_batch():
  model = Autoencoder(
    Embedded(ConvEncoder(ch=16, mult=(1, 1), blocks=1, out=16, mid_attention=False), vocab=8, width=8),
    KL(8),
    Categorical(ConvDecoder(ch=16, mult=(1, 1), blocks=1, channels=8, mid_attention=False)),
  )
  x = jnp.asarray(np.random.default_rng(0).integers(0, 8, (4, 16)))
  params = jax.jit(lambda: model.init({"params": KEY, "bottleneck": KEY}, x, train=True))()
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(params, state, key):
    def objective(p):
      return CrossEntropy()(x, model.apply(p, x, train=True, rngs={"bottleneck": key})[1].x)

    value, gradient = jax.value_and_grad(objective)(params)
    update, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, update), state, value

  state, values = optimizer.init(params), []
  for i in range(120):
    params, state, value = step(params, state, jax.random.fold_in(KEY, i))
    values.append(float(value))
  assert values[0] > 1.5 and values[-1] < 0.3
  decoded = model.apply(params, model.apply(params, x, method="encode"), method="decode")
  assert float(jnp.mean(decoded == x)) > 0.95
