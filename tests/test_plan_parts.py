"""The planner's parts on inputs with known answers: FLOPs of layers, bytes in compilers' texts, names, chips."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import pytest

from latents.backbones import dit_xl
from latents.errors import UserError
from latents.plan import collectives, estimate, facts, flops, gpu, hlo, topology
from latents.plan.chips import CHIPS, GIB


def counted(function, *shapes, dtype=jnp.float32):
  args = [jax.ShapeDtypeStruct(s, dtype) for s in shapes]
  return flops.count(jax.make_jaxpr(function)(*args))


def total(function, *shapes, dtype=jnp.float32):
  found = counted(function, *shapes, dtype=dtype)
  return sum(n for k, n in found.items() if k != "while")


def conv(x, w, stride=1, padding="SAME"):
  return jax.lax.conv_general_dilated(x, w, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_flops_of_products():
  assert total(jnp.dot, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
  assert total(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 3, 5), (4, 5, 7)) == 4 * 2 * 3 * 5 * 7
  assert counted(jnp.dot, (3, 5), (5, 7), dtype=jnp.bfloat16) == {"bfloat16": 210}


def test_flops_of_convolutions():
  # a line of 8 with 3 taps and padding 1 has 8 * 3 - 2 products of real elements
  assert total(conv, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * 2 * 5 * 3 * 22 * 22
  valid = lambda x, w: conv(x, w, 2, "VALID")
  assert total(valid, (2, 9, 9, 3), (3, 3, 3, 5)) == 2 * 2 * 5 * 3 * (4 * 3) ** 2


@pytest.mark.parametrize("stride", [1, 2])
def test_both_gradients_of_a_convolution_cost_as_much_as_it(stride):
  forward = total(lambda x, w: conv(x, w, stride), (2, 8, 8, 3), (3, 3, 3, 5))
  squares = lambda x, w: jnp.square(conv(x, w, stride)).sum()
  assert total(jax.grad(squares, argnums=(0, 1)), (2, 8, 8, 3), (3, 3, 3, 5)) == 3 * forward
  assert total(jax.grad(squares), (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * forward  # no weight gradient


def test_flops_of_loops_branches_and_dead_code():
  one = 2 * 4 * 4 * 4
  scan = lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, length=6)[0]
  assert total(scan, (4, 4), (4, 4)) == 6 * one
  stacked = lambda x, w: jax.lax.scan(lambda c, _: (c @ w, c @ w @ w), x, length=6)
  assert total(stacked, (4, 4), (4, 4)) == 18 * one
  assert total(lambda x, w: stacked(x, w)[0], (4, 4), (4, 4)) == 6 * one  # what is stacked is dead, what is carried not
  branch = lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w @ w, lambda: x @ w)
  assert total(branch, (4, 4), (4, 4)) == 3 * one
  assert total(lambda x, w: (x @ w, x @ w @ w)[0], (4, 4), (4, 4)) == one

  @jax.jit
  def both(x, w):
    return x @ w, x @ w @ w

  assert total(lambda x, w: both(x, w)[0], (4, 4), (4, 4)) == one  # dead inside a call too
  again = jax.grad(lambda w, x: jnp.sin(jax.checkpoint(lambda w: jnp.sin(x @ w) @ w)(w)).sum())
  assert total(again, (4, 4), (4, 4)) == 2 * one + 1 * one + 3 * one  # forward, x @ w again, backward
  endless = lambda x, w: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w, x)
  assert counted(endless, (4, 4), (4, 4)) == {"float32": one, "while": 1}


def test_flops_of_dit_xl():
  """Peebles & Xie 2022, table 4: DiT-XL/2 at 256 px has 118.6 Gflops, where they count a multiply-add as one."""
  net = dit_xl(2, classes=1000, out=8)
  x, t, y = (jax.ShapeDtypeStruct(s, d) for s, d in (((1, 32, 32, 4), "float32"), ((1,), "float32"), ((1,), "int32")))
  params = jax.eval_shape(net.init, jax.random.key(0), x, t, {"label": y})
  found = flops.count(jax.make_jaxpr(net.apply)(params, x, t, {"label": y}))
  assert found["float32"] / 2e9 == pytest.approx(118.64, rel=1e-3)


# As libtpu 0.0.52 writes it: one gather spread over the fusions it overlaps, a matrix product that passes shards
# round a ring (without a known trip count), sums merged into a tuple.
TPU = """HloModule jit_step, is_scheduled=true

%fused_computation.1 (p.1: bf16[48,768]) -> (bf16[48,768], bf16[768,768]) {
  %p.1 = bf16[48,768]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[768,768]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=38, replica_groups=mesh['axis_0'=16] {'axis_0'}, dimensions={0}, use_global_device_ids=true
  ROOT %t.1 = (bf16[48,768]{1,0:T(8,128)(2,1)}, bf16[768,768]{1,0:T(8,128)(2,1)}) tuple(%p.1, %all-gather.1)
}

%async_collective_fusion.7 (p.2: bf16[48,768]) -> bf16[768,768] {
  %p.2 = bf16[48,768]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[768,768]{1,0} all-gather(%p.2), channel_id=38, replica_groups=mesh['axis_0'=16] {'axis_0'}, dimensions={0}
}

%body (b: (bf16[16,48], u32[], u32[])) -> (bf16[16,48], u32[], u32[]) {
  %b = (bf16[16,48]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}, /*index=2*/u32[]{:T(128)}) parameter(0)
  %x = bf16[16,48]{1,0} get-tuple-element(%b), index=0
  %i = u32[]{:T(128)} get-tuple-element(%b), index=1
  %two..sunk = u32[]{:T(128)} constant(2)
  %add.3 = u32[]{:T(128)} add(%i, %two..sunk), metadata={op_name="a (b)"}
  %cp = (bf16[16,48]{1,0:T(8,128)S(1)}, bf16[16,48]{1,0:T(8,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=3, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %cpd = bf16[16,48]{1,0} collective-permute-done(%cp)
  ROOT %t = (bf16[16,48]{1,0}, u32[]{:T(128)}, u32[]{:T(128)}) tuple(%cpd, %add.3, %two..sunk)
}

%condition (c: (bf16[16,48], u32[], u32[])) -> pred[] {
  %c = (bf16[16,48]{1,0}, u32[], u32[]) parameter(0)
  %limit = u32[]{:T(128)} constant(8), metadata={op_name="x"}
  %j = u32[]{:T(128)} get-tuple-element(%c), index=1, metadata={op_name="x"}
  ROOT %less = pred[]{:T(512)} compare(%j, %limit), direction=LT
}

%all-reduce-scatter.3 (q: f32[64,8]) -> f32[4,8] {
  %q = f32[64,8]{1,0} parameter(0)
  %all-reduce.9 = f32[64,8]{1,0} all-reduce(%q), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}, to_apply=%add
  ROOT %ds = f32[4,8]{1,0} dynamic-slice(%all-reduce.9)
}

ENTRY %main.99_spmd (p: bf16[48,768]) -> f32[] {
  %p = bf16[48,768]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = u32[]{:T(128)} constant(0)
  %copy.1 = u32[]{:T(128)} copy(%zero)
  %async-collective-start.11 = (bf16[48,768]{1,0}, bf16[768,768]{1,0}) fusion(%p), kind=kCustom, calls=%fused_computation.1
  %fusion.8 = bf16[768,768]{1,0} fusion(%p), kind=kOutput, calls=%async_collective_fusion.7
  %tuple.5 = (bf16[16,48]{1,0:T(8,128)S(1)}, u32[]{:T(128)}, u32[]{:T(128)}) tuple(%p, %copy.1, %zero)
  %while.1 = (bf16[16,48]{1,0:T(8,128)S(1)}, u32[]{:T(128)}, u32[]{:T(128)}) while(%tuple.5), condition=%condition, body=%body
  %rs = f32[4,8]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3
  %a2a = bf16[16,2,384]{2,1,0:T(2,128)(2,1)S(1)} all-to-all(%p), channel_id=14, replica_groups={{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}, dimensions={0}
  %all-reduce.72 = (bf16[256,768]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[3072]{0:T(1024)}) all-reduce(%p, %p), channel_id=12, replica_groups=mesh['axis_0'=16] {'axis_0'}, to_apply=%add
  ROOT %done = f32[] constant(0)
}
"""  # noqa: E501


def read(text, devices=16):
  return collectives.read(hlo.Module(text), devices)


def test_the_text_of_the_tpu_compiler():
  found = {c.kind: c for c in read(TPU)}
  assert len(read(TPU)) == len(found) == 5
  everything = (tuple(range(16)),)
  gather = found["all-gather"]
  assert (gather.bytes, gather.times, gather.groups) == (768 * 768 * 2, 1, everything)  # once, not thrice
  permute = found["collective-permute"]
  assert (permute.bytes, permute.times, permute.loop) == (16 * 48 * 2, 4, False)  # 0, 2, 4, 6
  assert permute.groups == ((0, 1), (1, 2), (2, 3), (3, 0))
  assert found["reduce-scatter"].bytes == 64 * 8 * 4 and found["all-to-all"].bytes == 16 * 2 * 384 * 2
  assert found["all-reduce"].bytes == 256 * 768 * 2 + 3072 * 4


def entry(*lines):
  return "HloModule m\n\nENTRY %main () -> f32[] {\n" + "\n".join(f"  {line}" for line in lines) + "\n}\n"


def one(line, devices=16):
  (found,) = read(entry(line), devices)
  return found


@pytest.mark.parametrize(
  ("text", "groups"),
  [
    ("replica_groups={{0,1},{2,3}}", ((0, 1), (2, 3))),
    ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
    ("replica_groups=[4,4]<=[4,4]T(1,0)", tuple((i, i + 4, i + 8, i + 12) for i in range(4))),
    ("replica_groups=[4,4]<=[16]T(0)", tuple(tuple(range(i, i + 4)) for i in range(0, 16, 4))),
    ("replica_groups={}", (tuple(range(4)),)),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2,'c'=1] {'a','b'}", ((0, 1, 2, 3),)),
    ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", ((0, 1), (2, 3), (4, 5), (6, 7))),
    ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
    ("replica_groups=mesh['a'=4,'b'=2]<=[2,4]T(1,0) {'b'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
  ],
)
def test_replica_groups(text, groups):
  assert one(f"%x = f32[8]{{0}} all-reduce(%p), {text}, to_apply=%add", 4).groups == groups


def test_forms_of_collectives():
  start = "(f32[4,8]{1,0}, f32[64,8]{1,0}) all-gather-start(%p), replica_groups=[1,16]<=[16], dimensions={0}"
  assert one(f"%x = {start}").bytes == 64 * 8 * 4
  both = "((f32[4], bf16[4]), (f32[8], bf16[8])) all-gather-start(%p, %q), replica_groups=[8,2]<=[16]"
  assert one(f"%x = {both}").bytes == 8 * 4 + 8 * 2
  assert one("%x = f32[64]{0} all-reduce-start(%p), replica_groups=[1,16]<=[16]").bytes == 256
  assert one("%x = (f32[64]{0}, s8[3]{0}) all-reduce(%p, %q), replica_groups=[1,16]<=[16]").bytes == 259
  assert one("%x = bf16[4]{0} reduce-scatter(%p), replica_groups=[1,16]<=[16]").bytes == 4 * 2 * 16
  assert read(entry("%x = f32[64]{0} all-reduce-done(%y)")) == []


def test_sends_between_slices():
  """As libtpu 0.0.52 writes them: a slice's program, whose hosts exchange what the devices send."""
  handler = '_xla_host_transfer_handler_name="xla_megascale_runtime"'
  kind = lambda name: f'is_host_transfer=true, frontend_attributes={{{handler},_xla_megascale_transfer_type="{name}"}}'
  text = entry(
    "%g = f32[8]{0} all-gather(%p), channel_id=4, replica_groups={{0,1,2,3}}",
    f"%s = (f32[6]{{0:T(128)}}, u32[], token[]) send(%g, %t), channel_id=4, {kind('ALL_REDUCE')}",
    f"%r = (f32[6]{{0:T(128)}}, u32[], token[]) recv(%t), channel_id=5, {kind('ALL_REDUCE')}",
    f"%h = (bf16[6]{{0:T(128)}}, u32[], token[]) send(%g, %t), channel_id=6, {kind('ALL_GATHER')}",
  )
  inner, reduced, gathered = collectives.read(hlo.Module(text), 8, 2)
  islands = [0] * 4 + [1] * 4
  assert inner.sent(islands) == (24, 0)
  assert reduced.groups == gathered.groups == ((0, 4), (1, 5), (2, 6), (3, 7))
  assert reduced.sent(islands) == (0, 24) and gathered.sent(islands) == (0, 12)
  assert reduced.axes({"data": 2, "fsdp": 4}) == "data" and inner.axes({"data": 2, "fsdp": 4}) == "fsdp"


def test_loops_and_branches_in_texts():
  text = """HloModule m

%a (p: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} all-reduce(%p), channel_id=1, replica_groups=[1,4]<=[4]
}

%b (p: f32[8]) -> f32[8] {
  ROOT %x = f32[16]{0} all-reduce(%p), channel_id=2, replica_groups=[1,4]<=[4]
}

%c (p: f32[8]) -> f32[8] {
  ROOT %x = f32[32]{0} all-reduce(%p), channel_id=3, replica_groups=[1,4]<=[4]
}

ENTRY %main () -> f32[] {
  %w = f32[8]{0} while(%p), condition=%k, body=%a, backend_config={"known_trip_count":{"n":"28"},"x":1}
  %u = f32[8]{0} while(%p), condition=%k, body=%c
  %v = f32[8]{0} conditional(%i, %p, %p), branch_computations={%b, %none}
}
"""
  found = [(c.bytes, c.times, c.loop) for c in read(text, 4)]
  assert found == [(32, 28, False), (128, 1, True), (64, 1, False)]
  summary = collectives.summary(read(text, 4), {"data": 4}, [0] * 4)
  assert summary["in_unknown_loops"] == 1
  assert summary["link"] == 2 * 3 / 4 * (28 * 32 + 128 + 64)


def test_bytes_that_a_device_sends():
  make = lambda kind, groups: collectives.Collective(kind, 1000.0, groups)
  ring, alone = (tuple(range(8)),), [0] * 8
  assert make("all-gather", ring).sent(alone) == (875, 0)
  assert make("reduce-scatter", ring).sent(alone) == (875, 0)
  assert make("all-reduce", ring).sent(alone) == (1750, 0)
  assert make("all-to-all", ring).sent(alone) == (875, 0)
  assert make("collective-permute", ((0, 1), (1, 0))).sent(alone) == (1000, 0)
  two = [0] * 4 + [1] * 4  # two islands: within one as before, then each device exchanges its quarter
  assert make("all-reduce", ring).sent(two) == (2 * 750, 2 * 250 / 2)
  assert make("all-gather", ((0, 4), (1, 5))).sent(two) == (0, 500)
  assert make("all-to-all", ring).sent(two) == (375, 500)
  assert make("collective-permute", ((3, 4), (7, 0))).sent(two) == (0, 1000)


def test_axes_of_groups():
  shape = {"data": 2, "fsdp": 4, "tensor": 2}
  axes = lambda *groups: collectives.Collective("all-reduce", 1, groups).axes(shape)
  assert axes((0, 1), (2, 3)) == "tensor"
  assert axes((0, 2, 4, 6), (1, 3, 5, 7)) == "fsdp"
  assert axes((0, 8)) == "data" and axes((3,), (4,)) == ""
  assert axes(tuple(range(16))) == "data+fsdp+tensor"


def test_collectives_as_json():
  found = read(TPU)
  again = collectives.restored(collectives.merged([*found, *found]))
  assert sorted((c.kind, c.times) for c in again) == sorted((c.kind, 2 * c.times) for c in found)
  assert {c.groups for c in again} == {c.groups for c in found}


def test_bytes_in_main_memory():
  text = entry(
    "%p = f32[10,10]{1,0:T(8,128)} parameter(0)",
    "%q = f32[10]{0:T(128)S(1)} copy(%p)",  # 400 read, the result stays on the chip
    "%x = (f32[10]{0}, f32[10,10]{1,0}) fusion(%p, %q), calls=%f, output_to_operand_aliasing={{1}: (0, {})}",  # 40
    "%y = f32[10]{0} get-tuple-element(%x), index=0",
    "%s = ((f32[10,10]{1,0}), f32[2,10]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:2], [0:10]}",  # 80
    "%d = f32[2,10]{1,0:S(1)} slice-done(%s)",
    "%z = bf16[10]{0} convert(%y)",  # 60
  )
  assert hlo.accessed(hlo.Module(text)) == 400 + 40 + 80 + 60


@pytest.mark.parametrize(
  "message",
  [
    # libtpu 0.0.52, for 13.75 GiB of arguments and 9.4 of temporaries
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (23.12G) exceeds available HBM (15.75G). HLO module: jit_f.\nSee https://openxla.org/xla/errors",
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 23.12G of "
    "15.75G hbm. Exceeded hbm capacity by 7.37G.\n\nTotal hbm usage >= 23.37G:\n    reserved 258.00M\n",
  ],
)
def test_the_compilers_word_for_too_large(message):
  found = facts._too_large(message)
  assert found == {"fits": False, "needed": int(23.12 * GIB), "limit": int(15.75 * GIB)}


def test_another_failure_of_the_compiler_is_one_line():
  with pytest.raises(UserError, match="the compiler failed: INTERNAL"):
    facts._too_large("INTERNAL: broken\nmore")


def test_names_of_topologies():
  assert topology.parse("v5e:4x4").chips == 16 and topology.parse("v5e:4x4", 2).chips == 32
  assert topology.parse("v5p:4x4x4", 2).island == 64
  found = topology.parse("h100:2x4x8")
  assert (found.chips, found.island, found.slices, found.kind) == (64, 8, 2, "gpu")
  assert topology.parse("cpu:8").chip is None


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("v5f:4x4", "did you mean v5e:4x4"),
    ("v5e", "did you mean v5e:"),
    ("v5e:4by4", "unknown topology"),
    ("h100:8", "h100:SLICESxHOSTSxGPUS"),
    ("v5e:16", "v5e:4x4 or v5p:4x4x4"),
    ("v5e:0x4", "not of the form"),
    ("tpu:4x4", "unknown topology"),
    ("cpu:2x2", "cpu:8"),
  ],
)
def test_topologies_that_there_are_not(name, said):
  with pytest.raises(UserError, match=said):
    topology.parse(name)


def test_slices_of_gpus_are_in_the_name():
  with pytest.raises(UserError, match="first number"):
    topology.parse("h100:1x1x8", 2)


def test_a_missing_compiler_is_one_line(monkeypatch):
  find = importlib.util.find_spec
  hidden = ("libtpu", "jax_cuda13_plugin")
  monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in hidden else find(n, *a))
  with pytest.raises(UserError, match=r"pip install -e '.\[plan\]'"):
    topology.devices(topology.parse("v5e:4x4"))
  assert topology.parse("h100:1x1x8").stand_in
  with pytest.raises(UserError, match="needs 64 CPU devices"):
    topology.devices(topology.parse("h100:1x8x8"))


def test_published_figures_are_of_a_kind():
  """No unit is off by a thousand: what a byte from memory and over a link is worth in FLOPs."""
  assert set(CHIPS) == {"v4", "v5e", "v5p", "v6e", "tpu7x", "h100", "h200", "b200"}
  for name, chip in CHIPS.items():
    assert 100e12 < chip.peak < 3e15 and 15 * GIB < chip.hbm < 200 * GIB, name
    assert 150 < chip.peak / chip.bandwidth < 600, name
    assert 3 < chip.bandwidth / chip.link < 15 and 5 < chip.link / chip.network < 100, name
  assert all(CHIPS[name].hbm > 70 * GIB for name in gpu.GPUS)
  assert "device_memory_size: 80000000000" in gpu.target("h100") and "major: 10" in gpu.target("b200")


def test_the_time_of_a_step_is_its_tightest_bound():
  found = topology.parse("v5e:4x4")
  known = facts.Facts(flops={"bfloat16": int(16 * 197e12), "while": 1}, compiler="", seconds=0, temporaries=0)
  sent = {"link": 0, "network": 0}
  times = estimate.times(known, sent, found, 16)
  assert times["bound"] == "compute" and times["step"] == pytest.approx(1 / estimate.EFFICIENCY)
  times = estimate.times(known, {"link": int(600e9), "network": 0}, found, 16)
  assert times["bound"] == "links" and times["step"] == pytest.approx(3.0) and times["sum"] == pytest.approx(5.0)
  times = estimate.times(known, {"link": 0, "network": int(12.5e9)}, found, 16)
  assert times["bound"] == "network" and times["step"] == pytest.approx(4.0)
  single = facts.Facts(flops={"float32": int(8 * 989e12)}, compiler="", seconds=0, temporaries=0)
  times = estimate.times(single, sent, topology.parse("h100:1x1x8"), 8)
  assert times["compute"] == pytest.approx(2 / estimate.EFFICIENCY)  # TF32 has half the speed
  assert estimate.times(known, None, found, 16) is None
  assert estimate.times(known, sent, topology.parse("cpu:8"), 8) is None
  halves = topology.parse("v4:2x2x2")  # each chip is two devices, which share its memory and links
  assert math.isclose(estimate.times(known, sent, halves, 16)["compute"], 2 * 16 * 197 / 8 / 275)
  assert math.isclose(estimate.times(known, {"link": int(270e9), "network": 0}, halves, 16)["links"], 2.0)
