"""VAR: what is given in training is what is made in sampling, who sees whom, probabilities that sum to 1."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.codes import var as experiment
from latents.backbones import ScaleTransformer, var
from latents.bottlenecks import VQ, MultiScaleVQ
from latents.declare import Start
from latents.errors import UserError
from latents.losses import L2, Weight
from latents.priors import NextScale
from latents.runs import run
from latents.store.folder import Folder
from latents.types import Latent
from tests import micro
from tests.test_nn import drawn, normal
from tests.test_priors import LABEL, draw, latent_of, start

KEY = jax.random.key(0)
SCALES = ((1, 1), (2, 2), (3, 3))
SIZES = np.cumsum([0, 1, 4, 9])
V, N = 7, 14


def made(vocab: int = V, scales: tuple = SCALES, classes: int = 3, **fields) -> NextScale:
  net = ScaleTransformer(vocab, 16, 2, 2, scales, classes=classes)
  return NextScale(net, MultiScaleVQ(VQ(vocab, 4, project=False), scales), **fields)


PRIOR = made()
CODES = latent_of((N,), V).codes
PARAMS = start(PRIOR, Latent(codes=CODES))


def test_sampling_follows_the_full_pass_with_the_ramp_of_guidance():
  """Temperature 0: each code is the likeliest of the teacher-forced logits, so that both read the same inputs."""
  prior = made(temperature=0.0)
  own = {name: {"params": PARAMS["params"][name]} for name in ("backbone", "quantiser")}
  for scale in (0.0, 1.0, 4.0):
    codes = draw(prior, PARAMS, LABEL, (N,), guidance=scale).codes
    known = prior.quantiser.apply(own["quantiser"], codes, method="inputs")
    c, u = prior.backbone.apply(own["backbone"], known, LABEL), prior.backbone.apply(own["backbone"], known, None)
    ramp = np.repeat([0.0] * 3 if scale == 0.0 else 1 + (scale - 1) * np.arange(3) / 2, [1, 4, 9])[:, None]
    assert np.array_equal(codes, np.argmax(u + ramp * (c - u), -1))


def test_scale_by_scale_gives_the_rows_of_the_full_pass():
  net, x = PRIOR.backbone, normal(4, N, 4)
  own = {"params": PARAMS["params"]["backbone"]}
  whole, past = net.apply(own, x, LABEL), None
  for k in range(3):
    rows, past = net.apply(own, x[:, SIZES[k] : SIZES[k + 1]], LABEL, k, past, method="step")
    assert np.abs(rows - whole[:, SIZES[k] : SIZES[k + 1]]).max() < 1e-5


@pytest.mark.parametrize("scale", range(3))
def test_a_scale_sees_itself_and_those_before(scale: int):
  net, x = PRIOR.backbone, normal(1, N, 4)
  own = {"params": PARAMS["params"]["backbone"]}
  run = jax.jit(lambda x: net.apply(own, x, None))
  slope = np.abs(jax.jacrev(lambda x: run(x).sum(-1))(x))[0, :, 0].sum(-1)  # [rows, tokens]
  first, end = SIZES[scale], SIZES[scale + 1]
  assert not slope[:first, first:end].any()
  if scale:  # the first scale reads the class in place of x
    assert (slope[first:, first:end] > 0).all()
  else:
    assert not slope[:, :1].any()


@pytest.mark.parametrize("scale", range(3))
def test_a_code_says_nothing_of_its_own_scale(scale: int):
  """Codes of one scale are independent given those before: the chances of all others stay."""
  changed = CODES.at[:, SIZES[scale]].set((CODES[:, SIZES[scale]] + 1) % V)
  each = jax.jit(lambda codes: PRIOR.apply(PARAMS, Latent(codes=codes), LABEL, False, method="_codes"))
  moved = np.abs(each(CODES) - each(changed)).max(0)
  end = SIZES[scale + 1]
  assert not np.delete(moved[:end], SIZES[scale]).any()
  if scale < 2:
    assert moved[end:].max() > 1e-3


def test_all_probabilities_sum_to_one_and_samples_follow_them():
  prior = made(2, ((1, 1), (2, 2)), classes=0)
  states = jnp.asarray(list(itertools.product(range(2), repeat=5)))
  params = start(prior, Latent(codes=states), 0.5)
  chances = np.exp(-np.asarray(prior.apply(params, Latent(codes=states), None, method="nll"), np.float64))
  assert abs(chances.sum() - 1) < 1e-5 and chances.std() > 0.01
  codes = np.asarray(draw(prior, params, None, (5,), count=20_000).codes)
  counts = np.bincount(codes @ [16, 8, 4, 2, 1], minlength=32)
  kept = 20_000 * chances > 5
  assert (np.square(counts - 20_000 * chances) / (20_000 * chances))[kept].sum() < 61.1  # 0.999 at 31 degrees


def test_the_first_loss_is_the_log_of_the_vocabulary_and_the_quantiser_stands_still():
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY}
  latent = Latent(codes=CODES)
  params = jax.jit(lambda: PRIOR.init(rngs, latent, LABEL, train=True, method="loss"))()
  loss = jax.jit(
    jax.value_and_grad(lambda p: PRIOR.apply(p, latent, LABEL, train=True, method="loss", rngs=rngs)["nll"])
  )
  assert float(loss(params)[0]) == pytest.approx(math.log(V), abs=1e-5)
  slope = loss(PARAMS)[1]["params"]
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope["quantiser"]))
  assert any(np.any(leaf) for leaf in jax.tree.leaves(slope["backbone"]))
  named = jax.tree.structure(drawn(PRIOR.quantiser, normal(1, 3, 3, 4), train=True)["params"])
  assert jax.tree.structure(params["params"]["quantiser"]) == named  # what a stage 1's bottleneck gives finds its place


def test_queries_have_one_length_and_heat_is_bounded():
  net, x = PRIOR.backbone, normal(4, N, 4)
  own = {"params": PARAMS["params"]["backbone"]}
  with_heat = lambda value: jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full_like(leaf, value) if "heat" in str(path) else leaf, own
  )
  assert np.array_equal(net.apply(with_heat(math.log(100)), x, LABEL), net.apply(with_heat(9.0), x, LABEL))
  assert not np.allclose(net.apply(with_heat(0.0), x, LABEL), net.apply(with_heat(2.0), x, LABEL))


@pytest.mark.parametrize(("depth", "millions"), [(16, 310), (30, 2000)])
def test_sizes_are_the_readmes(depth: int, millions: int):
  scales = tuple((n, n) for n in experiment.PAPER)
  net = var(depth, 4096, scales, classes=1000)
  assert net.length == 680
  made = jax.eval_shape(lambda: net.init(KEY, jnp.zeros((1, 680, 32)), None))
  count = sum(math.prod(a.shape) for a in jax.tree.leaves(made)) / 1e6
  assert abs(count - millions) < (1 if millions < 1000 else 50), count


def test_a_run_puts_the_quantiser_of_its_own_stage_1_in_place(tmp_path):
  base, scales = micro.experiment(codes=True, gan=False), ((1, 1), (4, 4))
  assert base.stage2 is not None
  code = MultiScaleVQ(VQ(16, 4, project=False), scales)
  model = base.stage1.model
  model = model.clone(encoder=model.encoder.clone(out=4), bottleneck=code)
  one = dataclasses.replace(base.stage1, model=model, losses={"l2": L2(), "vq": Weight(1.0)}, steps=2)
  prior = NextScale(ScaleTransformer(16, 16, 1, 2, scales, classes=10), code.clone())
  start = (Start(stage=one, source="bottleneck", into="quantiser"),)
  two = dataclasses.replace(base.stage2, prior=prior, steps=2, start=start, trained=("backbone",))
  made = dataclasses.replace(base, name="scales", stage1=one, stage2=two)
  folder = Folder(run.run(made, tmp_path, None, "test"), made)
  first, second = (folder.artefact(number).weights for number in (1, 2))
  own = {name: array for name, array in first.items() if "/bottleneck/" in name}
  assert len(own) >= 5
  for name, array in own.items():
    assert np.array_equal(array, second[name.replace("/bottleneck/", "/quantiser/")]), name


def test_mistakes_are_one_clear_line():
  rngs = {"params": KEY, "prior": KEY}
  init = lambda prior, latent: jax.eval_shape(lambda: prior.init(rngs, latent, None, train=True, method="loss"))
  with pytest.raises(UserError, match="models 14 codes"):
    init(PRIOR, latent_of((4, 4), V))
  with pytest.raises(UserError, match="is continuous"):
    init(PRIOR, latent_of((N,), None))
  with pytest.raises(UserError, match="but its quantiser has"):
    init(PRIOR.clone(quantiser=MultiScaleVQ(VQ(V + 1, 4, project=False), SCALES)), latent_of((N,), V))
