"""Plans of ldm_kl at paper size: python tests/benchmarks/plan.py [--only NAME ...] [--render] [--out FOLDER]

Runs `latents plan` for each case below (extra `plan`; a TPU compile of DiT-XL/2 takes many minutes on one core, and
is recalled afterwards), and writes plan.json, page.md and scaling.png (needs matplotlib) into the folder.
--only: cases to run anew, the others stay as they are in plan.json. --render: run none.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from latents.plan.chips import CHIPS, GIB  # noqa: E402  (after the path)

PAPER = ["ldm_kl", "--scale", "paper"]
BASE = ["stage2.prior.backbone.depth", 12, "stage2.prior.backbone.width", 768, "stage2.prior.backbone.heads", 12]
DIT_B = [f"--{w}" if isinstance(w, str) else str(w) for w in BASE]

# name -> (words of `latents plan`, whether the constraints of the conditioning path are off)
CASES: dict[str, tuple[list[str], bool]] = {
  "stage 1, v5e:4x4": (["--stage", "1", "--topology", "v5e:4x4", "--mesh.fsdp", "16"], False),
  "stage 1, v5p:4x4x4": (["--stage", "1", "--topology", "v5p:4x4x4", "--stage1.batch", "64"], False),
  "stage 1, v6e:8x8": (["--stage", "1", "--topology", "v6e:8x8", "--stage1.batch", "64"], False),
  "stage 1, h100:1x1x8": (["--stage", "1", "--topology", "h100:1x1x8", "--mesh.fsdp", "8"], False),
  "stage 1, h100:1x1x8, batch 768": (
    ["--stage", "1", "--topology", "h100:1x1x8", "--mesh.fsdp", "8", "--stage1.batch", "768"], False),
  "stage 2, v5e:4x4": (["--stage", "2", "--topology", "v5e:4x4", "--mesh.fsdp", "16"], False),
  "stage 2, v5p:4x4x4": (["--stage", "2", "--topology", "v5p:4x4x4"], False),
  "stage 2, v6e:8x8": (["--stage", "2", "--topology", "v6e:8x8", "--mesh.fsdp", "8"], False),
  "stage 2, h100:1x1x8": (["--stage", "2", "--topology", "h100:1x1x8", "--mesh.fsdp", "8"], False),
  "too large: 2 blocks of DiT-XL/2, v5e:1x1": (
    ["--stage", "2", "--topology", "v5e:1x1", "--stage2.prior.backbone.depth", "2", "--stage2.batch", "1024"], False),
  "DiT-B/2, v5e:4x4, constraints": (
    ["--stage", "2", "--topology", "v5e:4x4", "--mesh.fsdp", "16", *DIT_B], False),
  "DiT-B/2, v5e:4x4, no constraints": (
    ["--stage", "2", "--topology", "v5e:4x4", "--mesh.fsdp", "16", *DIT_B], True),
}  # fmt: skip
WITHOUT = "from latents.backbones import dit; dit.constrain = lambda x: x\n"
SCALING = {"v5e": ("stage 2, v5e:4x4", 256), "h100": ("stage 2, h100:1x1x8", 8)}  # case, chips joined by links


def run(words: list[str], unconstrained: bool) -> dict[str, Any]:
  """One plan; an error is kept as what it says."""
  script = f"{WITHOUT if unconstrained else ''}import sys\nfrom latents import main\nsys.exit(main.main(sys.argv[1:]))"
  done = subprocess.run(
    [sys.executable, "-c", script, "plan", *PAPER, *words, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.returncode}


def scaling(plan: dict[str, Any], island: int) -> list[dict[str, float]]:
  """Weak scaling of a plan's step from 1 to 1,024 chips, the batch a chip and fsdp as planned.

  More chips are more copies: data = chips / fsdp. What a chip sends for fsdp is the plan's; gradients (float32) are
  summed over data by a ring within an island and then between islands, as in latents/plan/collectives.py.
  """
  chip, fsdp = CHIPS[plan["topology"].split(":")[0]], plan["mesh"]["fsdp"]
  alone = max(plan["time"]["compute"], plan["time"]["memory"])
  points = []
  for power in range(11):
    chips = 2**power
    split = min(fsdp, chips)
    inner, islands = min(island, chips) // split, max(1, chips // island)
    shard = 4 * plan["parameters"] / split
    link = plan["collectives"]["link"] * (split - 1) / split * fsdp / (fsdp - 1) + 2 * shard * (inner - 1) / inner
    network = 2 * shard / inner * (islands - 1) / islands
    links, beyond = link / chip.link, network / chip.network
    points.append({
      "chips": chips, "links_ms": 1e3 * links, "network_ms": 1e3 * beyond,
      "overlap": alone / max(alone, links, beyond), "no_overlap": alone / (alone + links + beyond),
    })  # fmt: skip
  return points


def draw(curves: dict[str, list[dict[str, float]]], measured: dict[str, Any] | None, path: Path) -> None:
  """Efficiency against chips."""
  import matplotlib  # pyright: ignore[reportMissingImports]

  matplotlib.use("Agg")
  from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

  figure, axis = pyplot.subplots(figsize=(7.2, 4.0), dpi=130)
  names = {"v5e": "TPU v5e, 256 chips a slice", "h100": "H100, 8 GPUs a host"}
  for color, (name, points) in zip(("#1f6feb", "#d1570c"), curves.items(), strict=False):
    chips = [p["chips"] for p in points]
    axis.fill_between(chips, [p["no_overlap"] for p in points], [p["overlap"] for p in points], color=color, alpha=0.12)
    axis.plot(chips, [p["overlap"] for p in points], color=color, label=f"{names[name]}: exchange hidden")
    axis.plot(chips, [p["no_overlap"] for p in points], color=color, ls="--", label=f"{names[name]}: none hidden")
  for point in (measured or {}).get("points", ()):
    axis.plot(point["processes"], point["efficiency"], "ks", ms=5, label="CPU processes, measured")
  axis.set(xscale="log", ylim=(0, 1.05), xlabel="chips (batch a chip constant)", ylabel="efficiency")
  axis.set_xticks([2**i for i in range(11)], [f"{2**i:,}" for i in range(11)])
  axis.minorticks_off()
  axis.grid(alpha=0.3)
  handles, labels = axis.get_legend_handles_labels()
  once = dict(zip(labels, handles, strict=True))
  axis.legend(once.values(), once.keys(), loc="lower left", fontsize=8, frameon=False)
  axis.set_title("DiT-XL/2, weak scaling on paper: planned bytes, published link speeds", fontsize=10)
  figure.tight_layout()
  figure.savefig(path)


def rows(plans: dict[str, Any], stage: int) -> list[str]:
  """The table of a stage."""
  lines = [
    "| topology | mesh (data, fsdp) | batch | state | frozen + batch | temporaries | peak of usable, GiB | step, ms "
    "(estimate) | bound by | images/s | hours | chip-hours |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for name, plan in plans.items():
    if not name.startswith(f"stage {stage}"):
      continue
    if "failed" in plan:
      lines.append(f"| {name} | the plan failed | | | | | | | | | | |")
      continue
    m, t, r = plan["memory"], plan["time"], plan["run"]
    state = sum(m[k] for k in ("parameters", "optimiser", "ema", "other"))
    verdict = f"{m['peak'] / GIB:.1f} of {m['usable'] / GIB:.1f}" + ("" if m["fits"] else " **does not fit**")
    time = [f"{t['step'] * 1e3:.0f}", t["bound"], f"{r['examples_per_second']:,.0f}", f"{r['hours']:.1f}",
            f"{r['chip_hours']:,.0f}"] if t else ["", "memory", "", "", ""]  # fmt: skip
    cells = [
      plan["topology"], f"{plan['mesh']['data']}, {plan['mesh']['fsdp']}", str(plan["batch"]), f"{state / GIB:.2f}",
      f"{(m['frozen'] + m['batch']) / GIB:.2f}", f"{m['temporaries'] / GIB:.2f}", verdict, *time,
    ]  # fmt: skip
    lines.append(f"| {' | '.join(cells)} |")
  return lines


def exchanges(plan: dict[str, Any]) -> str:
  """What a device sends, in a line."""
  if plan.get("collectives") is None:
    return "not known"
  parts = [f"{r['kind']} along {r['axes']} {(r['link'] + r['network']) / 2**20:,.1f} MiB ({r['operations']})"
           for r in plan["collectives"]["rows"]]  # fmt: skip
  unknown = plan["collectives"]["in_unknown_loops"]
  return "; ".join(parts) + (f"; {unknown} of them in loops of unknown length, counted once" if unknown else "")


def of_kind(plan: dict[str, Any], kind: str) -> str:
  """Operations and bytes of the collectives of a kind ("" = all)."""
  found = [r for r in plan["collectives"]["rows"] if kind in ("", r["kind"])]
  return f"{sum(r['operations'] for r in found)} operations, {sum(r['link'] for r in found) / 2**20:,.2f} MiB"


def page(plans: dict[str, Any], curves: dict[str, Any]) -> str:
  """page.md."""
  known = {k: p for k, p in plans.items() if "failed" not in p}
  text = (ROOT / "tests" / "benchmarks" / "plan_page.md").read_text()
  before, after = (known.get(f"DiT-B/2, v5e:4x4, {n}") for n in ("no constraints", "constraints"))
  compare = ["| per device and step | without constraints | with constraints |", "|---|---|---|"]
  if before and after:
    for kind in ("all-to-all", "all-gather", "all-reduce", "collective-permute", ""):
      cells = [of_kind(p, kind) for p in (before, after)]
      compare.append(f"| {kind or 'all'} | {cells[0]} | {cells[1]} |")
  advice = [f"{name}:\n" + "\n".join(f"- {line}" for line in p["advice"]) for name, p in known.items() if p["advice"]]
  sums = ["| chips | " + " | ".join(f"{n}: links, network, ms | hidden | not hidden" for n in curves) + " |"]
  sums.append("|" + "---|" * (1 + 3 * len(curves)))
  for points in zip(*curves.values(), strict=True):
    cells = [f"{p['links_ms']:.1f}, {p['network_ms']:.1f} | {p['overlap']:.1%} | {p['no_overlap']:.1%}" for p in points]
    sums.append(f"| {points[0]['chips']:,} | " + " | ".join(cells) + " |")
  shrinks = [f"- {name}: {p['state']['whole'] / GIB:.3f} GiB in all, 1/{p['state']['ratio']} of it on each of "
             f"{p['devices']} devices (fsdp {p['mesh']['fsdp']})" for name, p in known.items()]  # fmt: skip
  flops = [f"- {name}: {p['flops']['step'] / 1e12:.1f} T a step, {p['flops']['per_example'] / 1e9:.1f} G an image"
           for name, p in known.items()]  # fmt: skip
  seconds = [f"- {name}: {p['compiler']}, {p['compile_seconds']:.0f} s" for name, p in known.items()]
  commands = [f"- {name}: `latents plan {' '.join(PAPER + CASES[name][0])}`" for name in plans]
  filled = {
    "STAGE1": rows(plans, 1), "STAGE2": rows(plans, 2), "CONDITIONING": compare, "ADVICE": advice, "SCALING": sums,
    "STATE": shrinks, "FLOPS": flops, "COMPILERS": seconds, "COMMANDS": commands,
    "EXCHANGES": [f"- {name}: {exchanges(p)}" for name, p in known.items()],
  }  # fmt: skip
  text = text.replace("@MISSING@", "; ".join(name for name in CASES if name not in known) or "none")
  for key, lines in filled.items():
    text = text.replace(f"@{key}@", "\n".join(lines) or "none")
  return text


def main() -> None:
  """Run, keep, render."""
  words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  words.add_argument("--only", nargs="*", choices=list(CASES))
  words.add_argument("--render", action="store_true")
  words.add_argument("--out", type=Path, default=ROOT / "experiments" / "results" / "plan")
  given = words.parse_args()
  store = given.out / "plan.json"
  plans = json.loads(store.read_text()) if store.exists() else {}
  for name in [] if given.render else given.only or CASES:
    print(name, file=sys.stderr, flush=True)
    plans[name] = run(*CASES[name])
    plans = {k: plans[k] for k in CASES if k in plans}
    store.write_text(json.dumps(plans, indent=1) + "\n")
  curves = {k: scaling(plans[name], island) for k, (name, island) in SCALING.items() if plans.get(name, {}).get("time")}
  measured = given.out.parent / "survival" / "weak_scaling.json"
  draw(curves, json.loads(measured.read_text()) if measured.exists() else None, given.out / "scaling.png")
  (given.out / "page.md").write_text(page(plans, curves))


if __name__ == "__main__":
  main()
