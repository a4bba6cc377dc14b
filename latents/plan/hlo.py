"""The text of a compiled program (HLO) as computations and instructions; sizes of shapes, lengths of loops."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping

INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
SETS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
SIZES = {"pred": 1, "token": 0, "c64": 8, "c128": 16}  # bytes; others say their bits: bf16, f32, s4


@dataclasses.dataclass(frozen=True)
class Instruction:
  """`name = shape operation(inside)rest`; operands: the names in it."""

  name: str
  shape: str
  operation: str
  inside: str
  rest: str

  @functools.cached_property
  def operands(self) -> list[str]:
    """Names of the operands, or the text of a constant."""
    return re.findall(r"%([\w.\-]+)", self.inside)

  def called(self) -> list[str]:
    """The computations it runs, but for a loop's condition."""
    sets = [w.strip().lstrip("%") for group in SETS.findall(self.rest) for w in group.split(",")]
    return [*CALLED.findall(self.rest), *(w for w in sets if w)]


class Module:
  """The computations of a program; each is read when it is asked for."""

  def __init__(self, text: str):
    self._lines: dict[str, list[str]] = {}
    self._read: dict[str, dict[str, Instruction]] = {}
    self.entry = name = ""
    for line in text.splitlines():
      head = re.match(r"^(ENTRY )?%?([\w.\-]+)\s.*\{\s*$", line)
      if head and not line.startswith(("HloModule", " ")):
        name = head.group(2)
        self.entry = name if head.group(1) else self.entry
        self._lines[name] = []
      elif line.startswith("}"):
        name = ""
      elif name:
        self._lines[name].append(line)

  def __getitem__(self, computation: str) -> Mapping[str, Instruction]:
    """Name -> instruction, in the order of the text; "ROOT" is the result's."""
    if computation not in self._read:
      found: dict[str, Instruction] = {}
      for line in self._lines.get(computation, ()):
        match = INSTRUCTION.match(line)
        if match:
          made = _instruction(match.group(2), match.group(3))
          found[made.name] = made
          if match.group(1):
            found["ROOT"] = made
      self._read[computation] = found
    return self._read[computation]

  def trips(self, computation: str, loop: Instruction) -> int | None:
    """How often a `while` runs: as the compiler says, or counted where a counter runs up to a constant."""
    known = re.search(r'known_trip_count"?:\s*\{"n":"?(\d+)', loop.rest)
    if known:
      return int(known.group(1))
    inner = {k: re.search(rf"{k}=%?([\w.\-]+)", loop.rest) for k in ("condition", "body")}
    if not inner["condition"] or not inner["body"]:
      return None
    condition, body = inner["condition"].group(1), inner["body"].group(1)
    test = self[condition].get("ROOT")
    if test is None or test.operation != "compare" or "direction=LT" not in test.rest or len(test.operands) != 2:
      return None
    counter = self[condition].get(test.operands[0])
    limit = self._number(condition, test.operands[1])
    index = re.search(r"index=(\d+)", counter.rest) if counter else None
    begin = self._element(computation, loop.operands[:1], index)
    end = self._element(body, ["ROOT"], index)
    if limit is None or begin is None or end is None:
      return None
    start, step = self._number(computation, begin), self._step(body, end)
    return None if start is None or not step else max(0, -(-(limit - start) // step))

  def _element(self, computation: str, names: list[str], index: re.Match | None) -> str | None:
    """The operand of a tuple that stands at `index`."""
    made = self[computation].get(names[0]) if names else None
    if made is None or index is None or made.operation != "tuple" or len(made.operands) <= int(index.group(1)):
      return None
    return made.operands[int(index.group(1))]

  def _step(self, body: str, name: str) -> int | None:
    made = self[body].get(name)
    if made is None or made.operation != "add":
      return None
    numbers = [n for o in made.operands if (n := self._number(body, o)) is not None]
    return numbers[0] if len(numbers) == 1 else None

  def _number(self, computation: str, name: str) -> int | None:
    made = self[computation].get(name)
    while made is not None and made.operation in ("copy", "bitcast", "convert") and made.operands:
      made = self[computation].get(made.operands[0])
    if made is None or made.operation != "constant" or not re.fullmatch(r"-?\d+", made.inside):
      return None
    return int(made.inside)


def _instruction(name: str, text: str) -> Instruction:
  end = _close(text, 0) if text.startswith("(") else text.find(" ")
  operation = re.match(r"\s*([\w\-]+)\(", text[end:])
  if operation is None:
    return Instruction(name, text, "", "", "")
  begin = end + operation.end() - 1
  stop = _close(text, begin)
  return Instruction(name, text[:end], operation.group(1), text[begin + 1 : stop - 1], text[stop:])


def _close(text: str, begin: int) -> int:
  """The place after the bracket that closes the one at `begin`."""
  depth = 0
  for match in re.finditer(r"[()]", text[begin:]):
    depth += 1 if match.group() == "(" else -1
    if not depth:
      return begin + match.end()
  return len(text)


def elements(shape: str) -> list[str]:
  """The elements of a tuple's shape; of another shape, itself."""
  if not shape.startswith("("):
    return [shape]
  parts, depth, start = [], 0, 1
  for i, letter in enumerate(shape):
    depth += (letter in "([{") - (letter in ")]}")
    if depth == 0 or (depth == 1 and letter == ","):
      parts.append(shape[start:i])
      start = i + 1
  return parts


def size(shape: str) -> float:
  """Bytes of a shape's elements, without the padding of its layout; bounded dynamic axes at their bound."""
  total = 0.0
  for dtype, dims in re.findall(r"\b([a-z]\w*)\[([\d,<= ]*)\]", shape):
    bits = re.match(r"[a-z]+(\d+)", dtype)
    each = SIZES.get(dtype, int(bits.group(1)) / 8 if bits else 0)
    total += each * math.prod(int(n.strip().lstrip("<=")) for n in dims.split(",") if n.strip())
  return total


FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "")


def accessed(module: Module, computation: str = "") -> float:
  """Bytes that a step's operations read from and write to a device's main memory (HBM).

  Of each scheduled operation the operands and the result, but for those that the compiler keeps on the chip (memory
  space S(1) of TPU layouts) and those that it passes through or changes in place. An operand is counted whole where
  a part of it is read.
  """
  computation, total = computation or module.entry, 0.0
  known = module[computation]
  for name, made in known.items():
    if name == "ROOT" or made.operation in FREE or made.operation.endswith(("-done", "-update")):
      continue
    if made.operation == "while":
      total += sum(accessed(module, inner) for inner in made.called()) * (module.trips(computation, made) or 1)
    elif made.operation == "conditional":
      total += max((accessed(module, inner) for inner in made.called()), default=0.0)
    elif made.operation == "call":
      total += sum(accessed(module, inner) for inner in made.called())
    else:
      total += _touched(made, known)
  return total


def _touched(made: Instruction, known: Mapping[str, Instruction]) -> float:
  aliases = re.search(r"output_to_operand_aliasing=\{(.*?\))\}", made.rest)
  pairs = re.findall(r"\{([\d, ]*)\}: \((\d+), \{[\d, ]*\}", aliases.group(1)) if aliases else []
  passed = {int(operand) for _, operand in pairs}
  kept = {int(out.split(",")[0] or 0) for out, _ in pairs}
  shapes = [part for i, part in enumerate(elements(made.shape)) if i not in kept]
  if made.operation.endswith("-start") and len(shapes) > 1:
    shapes = shapes[1:2]  # (operand, result, context); the operand is below
  operands = [known[o].shape for i, o in enumerate(made.operands) if i not in passed and o in known]
  if "slice" in made.operation.removesuffix("-start"):  # of its operand it reads no more than it gives
    return sum(size(shapes[0]) for shape in (*shapes[:1], *operands[:1]) if _main(shape))
  return sum(size(leaf) for shape in (*shapes, *operands) for leaf in leaves(shape) if _main(leaf))


def _main(shape: str) -> bool:
  return not re.search(r"S\([1-9]", shape)


def leaves(shape: str) -> list[str]:
  """The arrays of a shape."""
  return [leaf for part in elements(shape) for leaf in leaves(part)] if shape.startswith("(") else [shape]
