"""The step of both stages: targets, losses with networks, adaptive weights at the encoder, rivals, taps."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import EMAVQ, KL, NoBottleneck
from latents.decoders import ConvDecoder, Equivariant
from latents.decoders.equivariant import fill, resize
from latents.encoders import ConvEncoder
from latents.errors import UserError
from latents.losses import L2, Rival, Term, Weight
from latents.nn.streams import streams
from latents.optim import Adam
from latents.regularisers import REPA, Alignment, NextToken, StageTeacher, Teacher
from latents.regularisers.next_token import NextVector
from latents.regularisers.teachers import resized
from latents.train import objective, stage1
from latents.train import step as steps
from latents.train.build_step import build_step
from latents.train.state import flatten
from latents.types import Decoded, Latent, Seen
from tests import micro

SIZE, BATCH = 8, 4


@dataclasses.dataclass(frozen=True)
class Toy(Teacher):
  """Features: a fixed random 2x2 patch embedding."""

  width: int = 6

  def load(self):
    return {"w": np.random.default_rng(0).normal(size=(2, 2, 1, self.width)).astype(np.float32)}

  def abstract(self):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self.load())

  def features(self, params, x, grid):
    f = jax.lax.conv_general_dilated(x, params["w"], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return resized(jnp.tanh(f), grid)


def model(bottleneck=None, decoder=None):
  return Autoencoder(
    encoder=ConvEncoder(ch=4, mult=(1, 1), blocks=1, out=4, mid_attention=False),
    bottleneck=bottleneck or NoBottleneck(),
    decoder=decoder or ConvDecoder(ch=4, mult=(1, 1), blocks=1, channels=1, mid_attention=False),
  )


def declared(losses, bottleneck=None, decoder=None, **changes):
  made = micro.experiment(gan=False)
  one = dataclasses.replace(
    made.stage1, data=dataclasses.replace(made.stage1.data, size=SIZE), model=model(bottleneck, decoder),
    losses=losses, batch=BATCH, **changes,
  )  # fmt: skip
  return dataclasses.replace(made, stage1=one, stage2=None)


def batch(seed=0):
  x = np.random.default_rng(seed).uniform(-1, 1, (BATCH, SIZE, SIZE, 1)).astype(np.float32)
  return {"x": jnp.asarray(x), "index": jnp.arange(BATCH)}


def ready(made):
  """(stage, state at step 0, the frozen argument)."""
  frozen = {"losses": objective.load_frozen(made.stage1.losses), "fixed": {}}
  return made.stage1, jax.jit(lambda f, b: micro.first_state(made.stage1, f, b))(frozen, batch()), frozen


def take(stage, state, frozen, data=None):
  return jax.jit(lambda s, f, b: micro.update(stage, s, f, b))(state, frozen, data or batch())


def gradients(stage, state, frozen):
  """The step's own gradients, before any optimiser."""
  key = jax.random.fold_in(jax.random.key(0), state.step)
  carried = {"model": state.extra["variables"], "losses": state.extra["losses"]}
  return jax.jit(lambda s, f, c, b: steps.gradients(stage1.passing(stage), stage, s, f, c, b, key)[0])(
    state, frozen, carried, batch()
  )


def apply(stage, params, state, x, **options):
  key = jax.random.fold_in(jax.random.key(0), state.step)
  variables = state.extra["variables"]
  return stage.model.apply(
    {"params": params, **variables}, x, train=True, rngs=streams(key), mutable=list(variables), **options
  )[0]


def close(a, b, rtol=2e-3):
  fa, fb = flatten(a), flatten(b)
  assert fa.keys() == fb.keys()
  for name in fa:
    size = max(float(np.abs(fb[name]).max()), 1e-8)
    np.testing.assert_allclose(fa[name], fb[name], rtol=rtol, atol=rtol * size, err_msg=name)


# -- (a) EQ-VAE: Decoded.target


def equivariant(rate):
  inner = ConvDecoder(ch=4, mult=(1, 1), blocks=1, channels=1, mid_attention=False)
  return Equivariant(inner=inner, rate=rate, scales=(0.5,))


def test_eq_gradient_is_that_of_the_papers_formula():
  """d/dE, d/dD of |tau(x) - D(tau(E(x)))|^2 + KL, tau as drawn."""
  made = declared({"l2": L2(), "kl": Weight(0.1)}, bottleneck=KL(dim=4), decoder=equivariant(1.0))
  stage, state, frozen = ready(made)
  grads, logs = gradients(stage, state, frozen)
  x = batch()["x"]
  _, decoded = jax.jit(lambda p: apply(stage, p, state, x))(state.params["ae"])
  # which rotation was drawn? the target says so
  small = resize(x, 0.5)
  turns = [k for k in range(4) if np.allclose(decoded.target, fill(jnp.rot90(small, k, (1, 2)), (SIZE, SIZE)))]
  assert len(turns) == 1 and turns[0] in (1, 2, 3)

  def formula(params):
    key = jax.random.fold_in(jax.random.key(0), state.step)
    bound = {"params": params}
    z = stage.model.apply(bound, x, train=True, rngs=streams(key), method="encode")
    tau = jnp.rot90(resize(z.z, 0.5), turns[0], (1, 2))
    run = lambda m, t: m.decoder.inner.reconstruct(Latent(z=t), train=True)
    y = stage.model.apply(bound, tau, method=run)
    return jnp.mean((jnp.rot90(small, turns[0], (1, 2)) - y) ** 2) + 0.1 * z.terms["kl"]

  value, wanted = jax.jit(jax.value_and_grad(formula))(state.params["ae"])
  assert float(logs["total"]) == pytest.approx(float(value), rel=1e-4)
  close(grads["ae"], wanted)
  assert float(optax.tree.norm(grads["ae"]["encoder"])) > 0  # through tau(z)
  # KL is that of the plain posterior
  plain = declared({"l2": L2(), "kl": Weight(0.1)}, bottleneck=KL(dim=4), decoder=equivariant(0.0)).stage1
  _, same = gradients(plain, state, frozen)
  assert float(same["kl"]) == pytest.approx(float(logs["kl"]), rel=1e-6)
  assert float(same["l2"]) == pytest.approx(
    float(jnp.mean((apply(plain, state.params["ae"], state, x)[1].x - x) ** 2)), rel=1e-4
  )


@dataclasses.dataclass(frozen=True)
class Copy(Rival):
  """A rival whose term is the mean of what it is shown."""

  def init(self, key, seen, *, aux):
    return {"params": {"w": jnp.ones(())}, "count": {"n": jnp.zeros(())}}

  def measure(self, seen, own, *, aux, key):
    return Term(own["params"]["w"] * seen.x_hat.mean(), {"fake": seen.x_hat.mean()})

  def learn(self, seen, own, *, aux, key):
    value = own["params"]["w"] * (seen.target.mean() - seen.x_hat.mean())
    return Term(value, {"real": seen.target.mean()}, {"count": {"n": own["count"]["n"] + 1}})


def test_a_rival_sees_the_target_and_neither_side_pulls_at_the_other():
  made = declared({"copy": Copy(weight=0.5)}, decoder=equivariant(1.0))
  stage, state, frozen = ready(made)
  grads, logs = gradients(stage, state, frozen)
  decoded = jax.jit(lambda p: apply(stage, p, state, batch()["x"])[1])(state.params["ae"])
  assert float(logs["real"]) == pytest.approx(float(decoded.target.mean()), abs=1e-6)
  wanted = jax.jit(jax.grad(lambda p: 0.5 * apply(stage, p, state, batch()["x"])[1].x.mean()))(state.params["ae"])
  close(grads["ae"], wanted)
  assert float(grads["copy"]["w"]) == pytest.approx(float(decoded.target.mean() - decoded.x.mean()), abs=1e-6)
  after, _ = take(stage, state, frozen)
  assert float(after.extra["losses"]["copy"]["count"]["n"]) == 1  # a rival's own state is carried
  assert set(after.params) == {"ae", "copy"} and "copy" not in after.ema["params"]


def test_a_wrong_target_shape_is_said():
  class Wrong(ConvDecoder):
    def __call__(self, latent, x, *, train):
      return Decoded(x=self.reconstruct(latent, train=train), target=x[:, :4])

  made = declared({"l2": L2()}, decoder=Wrong(ch=4, mult=(1, 1), blocks=1, channels=1, mid_attention=False))
  with pytest.raises(UserError, match=r"gives signals of \(8, 8, 1\), the data have \(4, 8, 1\)"):
    ready(made)


# -- (b) VA-VAE: a teacher, a projection, an adaptive weight at the encoder's last kernel


def vf(**fields):
  return Alignment(**{"weight": 0.3, "teacher": Toy(), "cosine_margin": 0.1, "distance_margin": 0.05, **fields})


def test_vf_weight_is_the_ratio_at_the_encoder_and_the_step_is_the_weighted_sum():
  made = declared({"l2": L2(weight=2.0), "vf": vf()})
  stage, state, frozen = ready(made)
  grads, logs = gradients(stage, state, frozen)
  loss, x = stage.losses["vf"], batch()["x"]

  def rec(params):
    return 2.0 * jnp.mean((apply(stage, params, state, x)[1].x - x) ** 2)

  def align(params, own):
    z = apply(stage, params, state, x)[0].z
    seen = Seen(x, x, None, z, None, None, {}, 0)
    return loss.measure(seen, {"params": own}, aux=frozen["losses"]["vf"], key=None).value

  own = state.params["vf"]
  first, (second, of_own) = jax.jit(lambda p, o: (jax.grad(rec)(p), jax.grad(align, (0, 1))(p, o)))(
    state.params["ae"], own
  )
  at = lambda g: jnp.linalg.norm(g["encoder"]["conv_out"]["kernel"])
  ratio = float(at(first) / (at(second) + 1e-4))
  assert float(logs["vf_adaptive"]) == pytest.approx(ratio, rel=1e-3)
  close(grads["ae"], jax.tree.map(lambda a, b: a + 0.3 * ratio * b, first, second))
  close(grads["vf"], jax.tree.map(lambda g: 0.3 * ratio * g, of_own))
  assert float(jnp.abs(second["decoder"]["conv_out"]["kernel"]).max()) == 0  # the term ends at z
  assert {"alignment_cosine", "alignment_distance", "grad_vf"} <= set(take(stage, state, frozen)[1])


def test_vf_hand_cases():
  f = jax.random.normal(jax.random.key(0), (2, 3, 3, 5))

  @dataclasses.dataclass(frozen=True)
  class Given(Toy):
    def features(self, params, x, grid):
      return f

  loss = vf(teacher=Given(), cosine_margin=0.0, distance_margin=0.0)
  seen = Seen(f, f, None, f, None, None, {}, 0)
  eye = {"params": {"kernel": jnp.eye(5)}}
  assert float(loss.measure(seen, eye, aux=None, key=None).value) == pytest.approx(0, abs=1e-5)  # W z = f
  turned = {"params": {"kernel": -jnp.eye(5)}}
  found = loss.measure(seen, turned, aux=None, key=None)
  assert float(found.logs["alignment_cosine"]) == pytest.approx(2, rel=1e-5)
  assert float(found.logs["alignment_distance"]) == pytest.approx(0, abs=1e-5)  # relative positions are the same
  inside = vf(teacher=Given(), cosine_margin=2.1, distance_margin=2.0)
  assert float(inside.measure(seen, turned, aux=None, key=None).value) == 0
  # a feature that is all zero has no infinite slope
  grads = jax.grad(lambda z: loss.measure(seen.replace(z=z), eye, aux=None, key=None).value)(jnp.zeros_like(f))
  assert np.isfinite(grads).all()


def test_groups_are_guarded_averaged_and_waited_for():
  made = declared({"l2": L2(), "vf": vf(start=1)}, ema=0.5)
  stage, state, frozen = ready(made)
  before = jax.device_get(state)
  one, logs = take(stage, state, frozen)
  same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  assert same(before.params["vf"], one.params["vf"]) and same(before.opt["vf"], one.opt["vf"])  # before its start
  assert not same(before.params["ae"], one.params["ae"]) and float(logs["vf_adaptive"]) == 0
  two, _ = take(stage, one, frozen)
  assert not same(one.params["vf"], two.params["vf"])
  assert {name.split("/")[1] for name in flatten(two.ema)} == {"encoder", "decoder"}
  poisoned = {**two.params, "vf": jax.tree.map(lambda a: a.at[0].set(jnp.nan), two.params["vf"])}
  bad = two.replace(params=poisoned)
  after, logs = take(stage, bad, frozen)
  assert not np.isfinite(float(logs["total"])) and int(after.extra["skipped"]) == 1
  assert same(after.opt, bad.opt) and same(after.params["ae"], bad.params["ae"])


def test_microbatches_make_the_update_of_the_whole():
  prior = NextToken(weight=0.2, network=NextVector(8, 1, 2, 8))
  found = []
  for parts in (1, 2):
    made = declared({"l2": L2(), "vf": vf(adaptive=False), "next": prior}, microbatches=parts)
    stage, state, frozen = ready(made)
    found.append(take(stage, state, frozen))
  (whole, logs), (parts, others) = found
  assert logs.keys() == others.keys()
  for name in logs:
    assert float(others[name]) == pytest.approx(float(logs[name]), rel=1e-3, abs=1e-6), name
  moments = [{k: v for k, v in flatten(s.opt).items() if "/mu/" in k} for s in (whole, parts)]
  assert {k.split("/")[0] for k in moments[0]} == {"ae", "vf", "next"}
  close(*moments)


# -- (c) a prior in the loop


@pytest.mark.slow
def test_larp_pulls_at_the_encoder_through_the_inputs_alone():
  prior = NextToken(weight=1.0, against="codes", network=NextVector(8, 1, 2, 8))
  book = EMAVQ(vocab=7, dim=4, project=False)
  made = declared({"l2": L2(weight=0.0), "commit": Weight(0.0), "next": prior}, bottleneck=book)
  stage, state, frozen = ready(made)
  grads, logs = gradients(stage, state, frozen)
  x = batch()["x"]
  assert float(logs["next"]) == pytest.approx(np.log(7), rel=0.3)
  codebook = state.extra["variables"]["codebook"]["bottleneck"]["embedding"]

  def formula(params, own, inputs):
    latent = apply(stage, params, state, x)[0]
    z = latent.z.reshape(BATCH, -1, 4)
    guess = prior.network.apply({"params": own}, z if inputs else jax.lax.stop_gradient(z))
    chances = jax.nn.log_softmax(guess @ codebook.T)
    return -jnp.take_along_axis(chances, latent.codes.reshape(BATCH, -1, 1), -1).mean()

  own = state.params["next"]
  wanted, of_own = jax.jit(jax.grad(lambda p, o: formula(p, o, True), (0, 1)))(state.params["ae"], own)
  close(grads["ae"], wanted)
  close(grads["next"], of_own)
  assert float(optax.tree.norm(grads["ae"]["encoder"])) > 0
  stopped = jax.jit(jax.grad(lambda p: formula(p, own, False)))(state.params["ae"])
  assert float(optax.tree.norm(stopped)) == 0
  # the codebook moves by its average alone: the same with and without the prior
  alone = declared({"l2": L2(weight=0.0), "commit": Weight(0.0)}, bottleneck=EMAVQ(vocab=7, dim=4, project=False))
  bare, bare_state, _ = ready(alone)
  a, b = take(stage, state, frozen)[0], take(bare, bare_state, {"losses": {}, "fixed": {}})[0]
  close(a.extra["variables"], b.extra["variables"], rtol=1e-6)


def test_crt_shrinks_with_the_latent_and_ramps():
  loss = NextToken(network=NextVector(8, 1, 2, 8), ramp=4, start=2)
  z = jax.random.normal(jax.random.key(0), (2, 5, 3))
  own = loss.init(jax.random.key(1), Seen(z, z, None, z, None, None, {}, 0), aux=None)
  zero = jax.tree.map(jnp.zeros_like, own)  # a prior that always says 0
  values = [
    loss.measure(Seen(z, z, None, a * z, None, None, {}, 0), zero, aux=None, key=None).value for a in (1.0, 0.5)
  ]
  assert float(values[1] / values[0]) == pytest.approx(0.25, rel=1e-6)
  assert [float(loss.gate(jnp.int32(s))) for s in (1, 2, 3, 9)] == [0, 0.25, 0.5, 1]
  causal = jax.jacobian(lambda z: loss.network.apply(own, z[None])[0, 2])(z[0])  # [D,N,D]
  assert np.abs(causal[:, :2]).max() > 0 and np.abs(causal[:, 2:]).max() == 0


# -- REPA-E's pattern: a prior that learns on stopped latents, while another of its terms shapes the encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Together(Rival):
  """learn: |g(z + noise) - z|^2 on stopped z. measure: how well h(g's hidden) meets features; g, h held still."""

  teacher: Toy = Toy()

  def load(self):
    return self.teacher.load()

  def abstract(self):
    return self.teacher.abstract()

  def init(self, key, seen, *, aux):
    made = nn.Dense(5).init(key, seen.z)["params"]
    more = nn.Dense(6).init(jax.random.fold_in(key, 1), jnp.zeros((1, 5)))["params"]
    back = nn.Dense(seen.z.shape[-1]).init(jax.random.fold_in(key, 2), jnp.zeros((1, 5)))["params"]
    return {"params": {"g": made, "h": more, "out": back}}

  def _terms(self, seen, own, aux, key):
    dense = lambda p, a: a @ p["kernel"] + p["bias"]
    hidden = jnp.tanh(dense(own["params"]["g"], seen.z + 0.1 * jax.random.normal(key, seen.z.shape)))
    denoise = jnp.square(dense(own["params"]["out"], hidden) - seen.z).mean()
    f = self.teacher.features(aux, seen.signal, seen.z.shape[1:-1])
    return denoise, jnp.square(dense(own["params"]["h"], hidden) - f).mean()

  def measure(self, seen, own, *, aux, key):
    return Term(self._terms(seen, own, aux, key)[1])

  def learn(self, seen, own, *, aux, key):
    denoise, align = self._terms(seen, own, aux, key)
    return Term(denoise + 0.5 * align, {"denoise": denoise})


def test_repa_e_pattern_keeps_the_denoising_loss_away_from_the_encoder():
  made = declared({"l2": L2(weight=0.0), "repa": Together(weight=1.5)})
  stage, state, frozen = ready(made)
  grads, logs = gradients(stage, state, frozen)
  loss, x = stage.losses["repa"], batch()["x"]
  key = jax.random.fold_in(jax.random.key(0), state.step)
  number = jax.random.fold_in(key, __import__("zlib").crc32(b"repa"))

  def terms(params, own):
    z = apply(stage, params, state, x)[0].z
    return loss._terms(Seen(x, x, None, z, None, None, {}, 0), {"params": own}, frozen["losses"]["repa"], number)

  of_model = jax.jit(jax.grad(lambda p: 1.5 * terms(p, state.params["repa"])[1]))(state.params["ae"])
  close(grads["ae"], of_model)
  both = lambda o: terms(state.params["ae"], o)[0] + 0.5 * terms(state.params["ae"], o)[1]
  close(grads["repa"], jax.jit(jax.grad(both))(state.params["repa"]))
  assert "denoise" in logs


# -- taps


def test_a_loss_reads_any_part_by_its_path_and_a_wrong_path_is_said():
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Small(NextToken):
    path: str = "decoder/mid_block0"

    @property
    def reads(self):
      return (self.path,)

    def init(self, key, seen, *, aux):
      return {}

    def measure(self, seen, own, *, aux, key):
      return Term(jnp.square(seen.taps[self.path]).mean())

  made = declared({"l2": L2(weight=0.0), "tap": Small(weight=1.0)})
  stage, state, frozen = ready(made)
  grads, logs = gradients(stage, state, frozen)
  assert float(logs["tap"]) > 0
  assert float(optax.tree.norm(grads["ae"]["decoder"]["mid_block0"])) > 0
  assert float(optax.tree.norm(grads["ae"]["decoder"]["mid_block1"])) == 0  # lies behind the tap
  assert set(state.params) == {"ae"}
  wrong = declared({"l2": L2(), "tap": Small(path="decoder/mid_blok0")})
  with pytest.raises(UserError, match=r"reads 'decoder/mid_blok0', which the model has not"):
    ready(wrong)


def test_the_programs_are_built_and_traced_with_networks_of_losses():
  prior = NextToken(network=NextVector(8, 1, 2, 8), optimizer=Adam(lr=1e-3))
  made = declared({"l2": L2(), "vf": vf(), "next": prior}, decoder=equivariant(0.5))
  program = build_step(made, 1, micro.one_device())
  state, logs = program.step.shapes(program.state, program.frozen, program.batch)
  assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == jax.tree.map(lambda a: (a.shape, a.dtype), program.state)
  assert set(program.state.params) == {"ae", "vf", "next"} and set(program.frozen["losses"]) == {"vf"}
  assert {"grad_vf", "grad_next", "vf_adaptive"} <= set(logs)


# -- the same step for stage 2: a loss with a teacher reads a block of the prior (REPA)


def test_repa_in_stage_2_by_the_same_step():
  from latents.frozen import Frozen
  from latents.train import stage2

  made = micro.experiment(gan=False)
  two = dataclasses.replace(
    made.stage2, losses={"repa": REPA(weight=0.5, teacher=Toy(), tap="backbone/blocks_0", width=8)}
  )
  made = dataclasses.replace(made, stage2=two)
  program = build_step(made, 2, micro.one_device())
  assert set(program.state.params) == {"prior", "repa"}
  assert set(program.frozen) == {"variables", "mean", "std", "losses", "fixed"}
  state = program.init()
  one = build_step(made, 1, micro.one_device()).init()
  arrays = {"variables": one.ema, "mean": jnp.zeros(4), "std": jnp.ones(4), "losses": objective.load_frozen(two.losses)}
  x = np.random.default_rng(0).uniform(-1, 1, (BATCH, 16, 16, 1)).astype(np.float32)
  data = {"x": jnp.asarray(x), "label": jnp.arange(BATCH), "index": jnp.arange(BATCH)}
  key = jax.random.fold_in(jax.random.key(0), state.step)
  model = Frozen(made.stage1.model)
  carried = {"model": state.extra["variables"], "losses": {}}
  find = lambda stage: jax.jit(
    lambda s, a, d: steps.gradients(stage2.passing(stage, model), stage, s, a, carried, d, key)[0]
  )(state, arrays, data)
  grads, logs = find(two)
  bare, others = find(made.stage2.__class__(**{**vars(two), "losses": {}}))
  assert set(logs) == {"flow", "repa", "total"} and set(others) == {"flow", "total"}
  assert float(logs["flow"]) == pytest.approx(float(others["flow"]), rel=1e-6)
  assert float(logs["total"]) == pytest.approx(float(logs["flow"] + 0.5 * logs["repa"]), rel=1e-5)
  behind = lambda g: g["prior"]["backbone"]["final"]
  close(behind(grads), behind(bare))  # what lies behind the block feels the flow loss alone
  differs = flatten(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), grads["prior"], bare["prior"]))
  moved = {n for n, d in differs.items() if float(d) > 1e-9}
  assert "backbone/embed/kernel" in moved and float(jnp.abs(grads["repa"]["out"]["kernel"]).max()) > 0
  assert addresses_of(made)[1] != addresses_of(dataclasses.replace(made, stage2=dataclasses.replace(two, losses={})))[1]


def addresses_of(made):
  from latents.declare import addresses

  return addresses(made)


def test_repa_aligns_tokens_with_the_grid_of_features():
  loss = REPA(teacher=Toy(), tap="here", width=8)
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
  params = loss.load()
  f = Toy().features(params, x, (4, 4)).reshape(2, 16, 6)
  seen = Seen(signal=x, target=None, x_hat=None, z=None, codes=None, mask=None, taps={"here": f}, step=0)
  own = loss.init(jax.random.key(1), seen, aux=params)
  assert set(own["params"]) == {"in", "mid", "out"}
  value = loss.measure(seen, own, aux=params, key=None).value
  guess = loss._head(f).apply(own, f)
  cos = (guess * f).sum(-1) / (jnp.linalg.norm(guess, axis=-1) * jnp.linalg.norm(f, axis=-1))
  assert float(value) == pytest.approx(-float(cos.mean()), rel=1e-4)
  with pytest.raises(UserError, match="cache False"):
    loss.measure(seen.replace(signal=None), own, aux=params, key=None)
  with pytest.raises(UserError, match="a grid of tokens like the signal's 8 x 8; 'here' gives 15"):
    loss.measure(seen.replace(taps={"here": f[:, :15]}), own, aux=params, key=None)
  wide = jax.random.normal(jax.random.key(0), (2, 8, 16, 1))  # 2 x 4 tokens
  f = Toy().features(params, wide, (2, 4)).reshape(2, 8, 6)
  value = loss.measure(seen.replace(signal=wide, taps={"here": f}), own, aux=params, key=None).value
  guess = loss._head(f).apply(own, f)
  cos = (guess * f).sum(-1) / (jnp.linalg.norm(guess, axis=-1) * jnp.linalg.norm(f, axis=-1))
  assert float(value) == pytest.approx(-float(cos.mean()), rel=1e-4)


def test_a_teacher_that_is_a_stage_is_trained_first_and_stays_as_it_is(tmp_path):
  from latents.declare import addresses, dumps, loads
  from latents.runs import run
  from latents.store.folder import Folder

  made = micro.experiment(gan=False)
  judge = dataclasses.replace(made.stage1, steps=2)
  losses = {**made.stage1.losses, "vf": Alignment(weight=0.3, teacher=StageTeacher(stage=judge))}
  one = dataclasses.replace(made.stage1, steps=2, losses=losses)
  made = dataclasses.replace(made, stage1=one, stage2=None)
  assert loads(dumps(made), "x") == made
  other = dataclasses.replace(judge, steps=3)
  longer = {**losses, "vf": Alignment(weight=0.3, teacher=StageTeacher(stage=other))}
  assert addresses(dataclasses.replace(made, stage1=dataclasses.replace(one, losses=longer))) != addresses(made)
  folder = Folder(run.run(made, tmp_path, None, "test"), made)
  base, number = folder.of(judge)
  assert base.finished(number) and folder.artefact(1) is not None
  lines = [line for line in (folder.path / "metrics.jsonl").read_text().splitlines() if "vf_adaptive" in line]
  assert len(lines) == 2
  alone = run.run(dataclasses.replace(made, name="alone", stage1=judge), tmp_path, None, "test")
  assert base.stage(1).stat() and (alone / base.stage(1).name).exists()  # shared by its address


def test_taps_under_remat_and_scan():
  class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
      return nn.tanh(nn.Dense(4, name="dense")(x)), None

  class Scanned(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x):
      layer = nn.remat(Layer) if self.remat else Layer
      layers = nn.scan(layer, variable_axes={"params": 0, "intermediates": 0}, split_rngs={"params": True}, length=3)
      return layers(name="layers")(x, None)[0]

  x = jax.random.normal(jax.random.key(0), (2, 4))
  variables = Scanned().init(jax.random.key(1), x)
  found = []
  for remat in (False, True):

    def tapped(params, remat=remat):
      want = frozenset({"layers/dense"})
      _, more = Scanned(remat=remat).apply(
        {"params": params}, x, mutable=["intermediates"],
        capture_intermediates=lambda module, _: "/".join(module.path) in want,
      )  # fmt: skip
      return steps._taps(more["intermediates"], want)["layers/dense"]

    value = tapped(variables["params"])
    assert value.shape == (3, 2, 4)  # a layer of a scan is a row
    grads = jax.grad(lambda p: jnp.square(tapped(p)[1]).mean())(variables["params"])["layers"]["dense"]["kernel"]
    assert float(jnp.abs(grads[1]).max()) > 0 == float(jnp.abs(grads[2]).max())  # the layer behind feels nothing
    found.append((value, grads))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *found)
