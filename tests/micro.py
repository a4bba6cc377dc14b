"""The smallest experiments that go through every branch of the training code, for tests of that code."""

import dataclasses
from typing import Any

import jax
from jax.sharding import AbstractDevice, AbstractMesh

from latents.autoencoders import Autoencoder
from latents.backbones import DiT, Transformer
from latents.bottlenecks import EMAVQ, KL
from latents.data import Digits
from latents.declare import Evaluation, Experiment, Mesh, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.discriminators import PatchGAN
from latents.encoders import ConvEncoder
from latents.frozen import Frozen
from latents.losses import L2, Adversarial, Weight
from latents.optim import Adam
from latents.priors import AutoregressivePrior, FlowPrior
from latents.train import sharding, stage1, stage2
from latents.train import step as steps
from latents.train.state import State

BATCH = 8


def experiment(*, codes: bool = False, gan: bool = True, **changes: Any) -> Experiment:
  """16 px digits, f4, KL with a flow prior or (`codes`) an EMA codebook with an autoregressive one."""
  data = Digits(size=16)
  bottleneck = EMAVQ(vocab=16, dim=4, restart=0.1) if codes else KL(dim=4)
  losses = {"l2": L2(), "commit": Weight(0.25)} if codes else {"l2": L2(), "kl": Weight(1e-6)}
  if gan:
    losses["gan"] = Adversarial(
      discriminator=PatchGAN(ch=8, layers=1), start=3, ramp=2, lead=1, clamp=10.0, optimizer=Adam(lr=1e-3)
    )
  model = Autoencoder(
    encoder=ConvEncoder(ch=8, mult=(1, 1, 1), blocks=1, out=8, mid_attention=False),
    bottleneck=bottleneck,
    decoder=ConvDecoder(ch=8, mult=(1, 1, 1), blocks=1, channels=1, mid_attention=False),
  )
  if codes:
    prior: Any = AutoregressivePrior(backbone=Transformer(vocab=16, width=16, depth=1, heads=2, length=16, classes=10))
  else:
    prior = FlowPrior(backbone=DiT(depth=1, width=16, heads=2, patch=2, classes=10))
  one = Stage1(
    data=data, model=model, losses=losses, optimizer=Adam(lr=1e-3), steps=6, batch=BATCH, log_every=1, save_every=2
  )
  two = Stage2(data=data, prior=prior, optimizer=Adam(lr=1e-3), steps=6, batch=BATCH, log_every=1, save_every=2)
  made = Experiment(
    name="micro", stage1=one, stage2=two, evaluation=Evaluation(images=20, samples=20, batch=20, features=False)
  )
  return dataclasses.replace(made, **changes)


def one_device() -> jax.sharding.Mesh:
  """A mesh of the first device."""
  return sharding.make_mesh(Mesh(), jax.devices()[:1])


def on_tpu() -> Any:
  """A context in which what is traced is for a TPU, as the planner has one."""
  device = AbstractDevice("TPU v5 lite", 1, "tpu")
  return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("data",), abstract_device=device))


def passing(stage: Stage1 | Stage2, model: Any = None) -> steps.Passing:
  """How a stage makes a pass; model: stage 1's, for a stage 2."""
  return stage1.passing(stage) if isinstance(stage, Stage1) else stage2.passing(stage, Frozen(model))


def first_state(stage: Stage1 | Stage2, frozen: Any, batch: Any, model: Any = None) -> State:
  """The state at step 0 under seed 0, without a program around it."""
  return steps.init(passing(stage, model), stage, 0, frozen, batch)


def update(stage: Stage1 | Stage2, state: State, frozen: Any, batch: Any, model: Any = None) -> tuple[State, dict]:
  """One step under seed 0."""
  return steps.step(passing(stage, model), stage, 0, state, frozen, batch)
