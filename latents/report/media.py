"""The parts of a page that show signals: originals against reconstructions, latents, samples."""

import html
import json
import math
from collections.abc import Sequence

import numpy as np

from latents import media
from latents.media.drawing import spectrogram
from latents.report import figures, text, video
from latents.report.run import Run, decoded, kind, label_names, rate
from latents.report.scores import clip

SHOWN, PER_CLASS, TOTAL, CLIPS, SECONDS = 24, 10, 200, 8, 4.0
RATE = 16_000  # where a run does not store one; the page says so


def reconstructions(run: Run, key: str, budget: int) -> str:
  """Originals and reconstructions in one place, with a flip; `budget` bytes of PNG or WAV."""
  x, decodings = run.reconstructions.get("x"), decoded(run)
  if x is None:
    return '<p class="none">No reconstructions yet: this run has no reconstructions.npz.</p>'
  if not len(x):
    return '<p class="none">reconstructions.npz holds no examples.</p>'
  if not decodings:
    return '<p class="none">reconstructions.npz holds originals only, no decoding of them.</p>'
  match kind(run.reconstructions):
    case "text":
      return text.reconstructions(x, decodings)
    case "audio":
      return _clips(run, key, x, decodings, budget)
    case "array":
      drawn = media.KINDS["array"].tiles(np.concatenate([x, *decodings.values()]), None)  # on one scale
      x, *rest = np.split(drawn, 1 + len(decodings))
      return _images(key, x, dict(zip(decodings, rest, strict=True)), budget)
    case "video":
      words = f"Originals above, below them {', '.join(html.escape(n) for n in _names(decodings))}."
      motion = video.moving([x, *decodings.values()], words, budget // 2)
      return _images(key, x, decodings, budget // 2) + motion
  return _images(key, x, decodings, budget)


def _images(key: str, x: np.ndarray, decodings: dict[str, np.ndarray], budget: int) -> str:
  arrays = [figures.pictures(a[:SHOWN]) for a in (x, *decodings.values())]
  sheets, side = figures.pack(arrays, budget, (256, 192, 128, 96, 48), (24, 16, 12, 8))
  first, n = sheets[0], sheets[0].count
  rules = [f".{key}o{{{first.rule()}}}"]
  rules += [f'#{key}f[data-d="{i}"] .d{{{s.rule()}}}' for i, s in enumerate(sheets[1:])]
  tiles = "".join(
    f'<span class="tile" role="img" aria-label="Image {i + 1}" style="{first.place(i)}">'
    f'<i class="o {key}o"></i><i class="d"></i></span>'
    for i in range(n)
  )
  psnr = [[_psnr(arrays[0][i], a[i]) for i in range(n)] for a in arrays[1:]]
  names = _names(decodings)
  wide = first.width / first.height
  # few columns for few or wide images; a phone shows five square ones in a row
  tile = f"--tile:{round(min(360, (92 if n > 8 else 150) * max(1, wide)))}px"
  tile += f";--phone:{round(min(300, 60 * max(1, wide)))}px"
  if first.width > 128:
    tile = f"--tile:{min(256, first.width)}px;--phone:{'150px' if wide < 1.5 else '300px'}"
  lens = "".join(
    f'<figure><span class="big {c}">{layers}</span><figcaption{now}>{word}</figcaption></figure>'
    for c, layers, word, now in (
      ("", f'<i class="o {key}o"></i>', "original", ""),
      ("", '<i class="d"></i>', html.escape(names[0]), ' class="now"'),
      ("diff", f'<i class="o {key}o"></i><i class="d"></i>', "difference \N{MULTIPLICATION SIGN} 4", ""),
    )
  )
  table = "".join(f"<dt>{html.escape(clip(name, 40))}</dt><dd></dd>" for name in names)
  return (
    f"<style>{''.join(rules)}</style>"
    f'<div class="flip" id="{key}f" data-d="0" data-names="{_data(names)}" data-psnr="{_data(psnr)}" '
    f'style="--ar:{wide:.4f}">{_bar(key, names)}<div class="bench">'
    f'<div class="tiles" tabindex="0" role="group" style="{tile}" '
    f'aria-label="{n} images. Hold space to see the originals; arrow keys choose an image.">{tiles}</div>'
    f'<div class="lens js" role="group" aria-label="The chosen image, magnified">{lens}'
    f'<div class="say"><h4>Image 1</h4><dl>{table}</dl></div></div></div></div>'
    f'<p class="small">{_how_many(n, len(x), "held-out images")} Press and hold an image, the button or '
    f"the space bar to see the originals in the same place; point at an image to magnify it."
    f"{_scaled(x, side)} PSNR of single images is over the pictures as shown.</p>"
  )


def _names(decodings: dict[str, np.ndarray]) -> list[str]:
  return [name or ("default decoding" if len(decodings) > 1 else "reconstructions") for name in decodings]


def _bar(key: str, names: Sequence[str]) -> str:
  choice = ""
  if len(names) > 1:
    options = "".join(
      f'<label><input type="radio" name="{key}d" value="{i}"{" checked" if i == 0 else ""}>'
      f"<span>{html.escape(clip(name.removesuffix(' decoding'), 40))}</span></label>"
      for i, name in enumerate(names)
    )
    choice = f"<fieldset><legend>Decoding</legend>{options}</fieldset>"
  return (
    f'<div class="bar js">{choice}<button type="button" class="hold" aria-pressed="false">Hold for originals'
    f"<kbd>space</kbd></button>"
    f'<p class="state" aria-live="polite">Showing <b>{html.escape(names[0])}</b></p></div>'
  )


def _how_many(n: int, total: int, what: str) -> str:
  return f"{n} {what}." if n == total else f"The first {n} of {total} stored {what}."


def _scaled(x: np.ndarray, side: int) -> str:
  height, width = x.shape[-3:-1]
  frames = " Videos are shown as four frames side by side." if x.ndim == 5 else ""
  large = max(height, width * (min(4, x.shape[1]) if x.ndim == 5 else 1)) > side
  return frames + (f" Reduced to {side} pixels for this page (stored: {width} by {height})." if large else "")


def _psnr(a: np.ndarray, b: np.ndarray) -> float | None:
  error = float(np.mean((a.astype(np.float32) - b) ** 2))
  return round(10 * math.log10(255**2 / error), 2) if error else None


def _data(x: object) -> str:
  return html.escape(json.dumps(x))


def _clips(run: Run, key: str, x: np.ndarray, decodings: dict[str, np.ndarray], budget: int) -> str:
  """Audio: waveform and spectrogram flip in place; each side has its player."""
  hertz, names = rate(run.reconstructions), _names(decodings)
  waves = [figures.waves(a[:CLIPS]) for a in (x, *decodings.values())]
  waves, length, n = _fit(waves, hertz or RATE, budget)
  rules = "".join(f'#{key}f:not([data-d="{i}"]) .d{i}{{display:none}}' for i in range(len(names)))
  items = []
  for i in range(n):
    sides = f'<span class="side o">{_look(waves[0][i], hertz, f"original {i + 1}")}</span>'
    players = _player(waves[0][i], hertz, f"original {i + 1}")
    for j, name in enumerate(names):
      words = f"{name}, clip {i + 1}"
      sides += f'<span class="side d d{j}">{_look(waves[j + 1][i], hertz, words)}</span>'
      players += f'<span class="d{j}">{_player(waves[j + 1][i], hertz, words)}</span>'
    items.append(f'<div class="clip"><div class="sides">{sides}</div>{players}</div>')
  return (
    f"<style>{rules}</style>"
    f'<div class="flip" id="{key}f" data-d="0" data-names="{_data(names)}">{_bar(key, names)}'
    f'<div class="clips" tabindex="0" role="group" aria-label="{n} clips. Hold space to see the originals.">'
    f"{''.join(items)}</div></div>"
    f'<p class="small">{_how_many(n, len(x), "held-out clips")} Waveform above, log-power spectrogram (80 '
    f"dB, up to half the sampling rate) below. Press and hold a picture, the button or the space bar to "
    f"see the "
    f"originals."
    f"{_rate_note(hertz)}{_cut(x, length, hertz)}</p>"
  )


def _fit(waves: list[np.ndarray], hertz: int, budget: int) -> tuple[list[np.ndarray], int, int]:
  """Fewer clips, then shorter ones, until their WAVs and pictures (about 15 kB each) fit `budget` bytes."""
  for limit in (SECONDS, 2.0, 1.0, 0.5):
    length = max(1, min(waves[0].shape[1], int(limit * hertz)))
    for n in (8, 6, 4) if limit > 0.5 else (4, 2, 1):
      if min(n, len(waves[0])) * len(waves) * (2 * length + 15_000) <= budget:
        return [w[:n, :length] for w in waves], length, min(n, len(waves[0]))
  return [w[:1, :length] for w in waves], length, 1


def _look(wave: np.ndarray, hertz: int | None, words: str) -> str:
  image = figures.png(spectrogram(wave, hertz or RATE, height=110, width=240), colours=48)
  return (
    f'{figures.waveform(wave)}<img src="{figures.data_uri(image, "image/png")}" width="240" height="110" '
    f'alt="Spectrogram: {html.escape(words)}" draggable="false">'
  )


def _player(wave: np.ndarray, hertz: int | None, words: str) -> str:
  sound = figures.data_uri(figures.wav(wave, hertz or RATE), "audio/wav")
  label = html.escape(words)
  return f'<label>{label}<audio controls preload="metadata" aria-label="{label}" src="{sound}"></audio></label>'


def _rate_note(hertz: int | None) -> str:
  return "" if hertz else f" The run stores no sampling rate: {RATE} Hz is assumed."


def _cut(x: np.ndarray, length: int, hertz: int | None) -> str:
  return "" if length == x.shape[1] else f" Clips are cut to {length / (hertz or RATE):.2g} s for this page."


def latents(run: Run, key: str, budget: int) -> str | None:
  """The latents as pictures beside their originals; None if the run stores none."""
  pca, x = run.reconstructions.get("pca"), run.reconstructions.get("x")
  if pca is None or x is None or not len(x):
    return None
  grid = f"{pca.shape[1]} by {pca.shape[2]}" if pca.shape[1] > 1 else f"{pca.shape[2]} tokens"
  small = figures.pictures(pca[:12])
  tall = np.repeat(small, max(1, round(small.shape[2] / 12)), 1) if small.shape[1] == 1 else small
  colour = figures.pack([tall], budget // 2, (128, 64), (12, 8, 4))[0][0]
  signal = None
  if kind(run.reconstructions) in ("image", "video"):
    signal = figures.pack([figures.pictures(x[: colour.count])], budget // 2, (160, 96, 48), (colour.count,))[0][0]
  # a grid of about the picture's shape stands beside it, a strip of tokens below it
  beside = signal is not None and 0.5 < (colour.width / colour.height) / (signal.width / signal.height) < 2
  rules = f".{key}p{{{colour.rule()}}}" + (f".{key}q{{{signal.rule()}}}" if signal else "")
  items = []
  for i in range(colour.count):
    shown = cell(f"{key}q", signal, i, f"Original {i + 1}") if signal else ""
    shown += cell(f"{key}p", colour, i, f"Latent of original {i + 1}")
    items.append(f'<div class="pair{" beside" if beside else ""}">{shown}</div>')
  where = "Left the original, right its" if beside else "The original, and below it its" if signal else "The"
  width = 210 if beside else 130 if signal else 250
  return (
    f'<style>{rules}</style><div class="pairs" style="--pair:{width}px">{"".join(items)}</div>'
    f'<p class="small">{where} '
    f"latent ({grid}): the first three principal components over these examples as red, green and blue.</p>"
  )


def cell(name: str, sheet: figures.Sheet, i: int, words: str) -> str:
  """Image i of a sheet, whose rule has a class of that name."""
  style = f"--ar:{sheet.width / sheet.height:.4f};{sheet.place(i)}"
  what = f'role="img" aria-label="{html.escape(words)}"'
  return f'<span class="tile" {what} style="{style}"><i class="{name}"></i></span>'


def samples(run: Run, key: str, budget: int) -> str:
  """Samples, a row for each class where they have labels."""
  x = run.samples.get("x")
  if x is None:
    if run.declaration and run.stage(2) is None:
      return '<p class="none">This experiment has no stage 2 (no prior), so there are no samples.</p>'
    done = "has not run" if not run.metrics.get(2) else "has run, but no samples are stored"
    return f'<p class="none">Stage 2 {done} yet: this run has no samples.npz.</p>'
  if not len(x):
    return '<p class="none">samples.npz holds no examples.</p>'
  rows = _rows(run.samples)
  chosen, motion = [i for _, members in rows for i in members], ""
  match kind(run.samples):
    case "text":
      return text.samples(x, rows)
    case "audio":
      return _sample_clips(run, x, rows, budget)
    case "array":
      x = media.KINDS["array"].tiles(x, None)
    case "video":
      budget //= 2
      first = [i for turn in range(8) for _, members in rows for i in members[turn : turn + 1]]
      motion = video.moving([x[sorted(first[:8])]], "Samples, in the order of the strips.", budget)
  sheets, side = figures.pack([figures.pictures(x[chosen])], budget, (160, 128, 96, 64, 48, 32, 24, 16), (len(chosen),))
  sheet, place, out = sheets[0], 0, []
  tile = f"--tile:{round(min(300, 76 * max(1, sheet.width / sheet.height)))}px;--n:{max(len(m) for _, m in rows)}"
  for name, members in rows:
    tiles = "".join(
      cell(f"{key}s", sheet, place + i, f"Sample {i + 1}" + (f" of {name}" if name else ""))
      for i in range(len(members))
    )
    place += len(members)
    line = f'<div class="row">{tiles}</div>'
    label = html.escape(clip(name, 60))
    out.append(f'<div class="class"><span title="{label}">{label}</span>{line}</div>' if name else line)
  labels = run.samples.get("label")
  classes = len(set(labels[labels >= 0].tolist())) if labels is not None else 0
  some = f" {len(rows)} of {classes} classes." if classes > len(rows) else ""
  return (
    f'<style>.{key}s{{{sheet.rule()}}}</style><div class="classes" style="{tile}">{"".join(out)}</div>'
    f'<p class="small">{len(chosen)} of {len(x)} stored samples, the first of each class, not selected.{some}'
    f"{_scaled(x, side)}</p>{motion}"
  )


def _rows(arrays: dict[str, np.ndarray]) -> list[tuple[str, list[int]]]:
  """[(name of a class, indices of its first samples)], at most TOTAL; one nameless class if unlabelled."""
  n, label = len(arrays["x"]), arrays.get("label")
  names = label_names(arrays)
  known = sorted(set(label[label >= 0].tolist())) if label is not None else []
  if not known:
    return [("", list(range(min(n, TOTAL // 2))))]
  per = min(PER_CLASS, max(4, TOTAL // len(known)))
  if len(known) * per > TOTAL:  # classes spread evenly over all of them
    known = [known[i] for i in np.linspace(0, len(known) - 1, TOTAL // per).round().astype(int)]
  rows = []
  for k in known:
    name = names[k] if k < len(names) and names[k].strip() else f"class {k}"
    rows.append((name, np.flatnonzero(label == k)[:per].tolist()))
  return rows


def _sample_clips(run: Run, x: np.ndarray, rows: list[tuple[str, list[int]]], budget: int) -> str:
  hertz = rate(run.samples)
  by_class = [(name, i) for turn in range(2) for name, m in rows for i in m[turn : turn + 1]]
  order = by_class if len(rows) > 1 else [("", i) for i in rows[0][1]]
  order = sorted(order[:CLIPS], key=lambda pair: pair[0])
  waves, length, n = _fit([figures.waves(x[[i for _, i in order]])], hertz or RATE, budget)
  items = []
  for number, (wave, (name, _)) in enumerate(zip(waves[0], order[:n], strict=True)):
    words = f"sample {number + 1}" + (f", {name}" if name else "")
    items.append(f'<div class="clip">{_look(wave, hertz, words)}{_player(wave, hertz, words)}</div>')
  return (
    f'<div class="clips">{"".join(items)}</div><p class="small">{n} of {len(x)} stored samples, not selected.'
    f"{_rate_note(hertz)}{_cut(x, length, hertz)}</p>"
  )
