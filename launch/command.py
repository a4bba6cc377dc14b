"""Commands of other programs, run or (in a dry run) printed; and what the launchers' command lines share."""

import argparse
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from latents import main as cli
from latents.errors import UserError
from latents.machine import endings

PREEMPTED = endings.PREEMPTED
ROOT = Path(__file__).resolve().parents[1]
LATENTS = (sys.executable, "-m", "latents.main")  # this environment's, whether or not its bin/ is on PATH


def quoted(command: Iterable[str], settings: Mapping[str, str] | None = None) -> str:
  """A line for a POSIX shell: NAME=value ... program argument ..."""
  words = [f"{name}={shlex.quote(value)}" for name, value in (settings or {}).items()]
  return " ".join([*words, *map(shlex.quote, command)])


@dataclasses.dataclass(frozen=True)
class Runner:
  """Runs commands, or with `dry` prints them on stdout and runs nothing.

  settings: environment variables on top of this process's own. Programs that are missing, and commands
  that fail where `check` holds, are UserErrors.
  """

  dry: bool = False

  def run(self, command: Sequence[str], settings: Mapping[str, str] | None = None, check: bool = True) -> int:
    """Run to the end, with this process's streams; the exit code (0 in a dry run)."""
    if self._dry(command, settings):
      return 0
    with _start(command, settings) as process:
      code = process.wait()
    if code and check:
      raise UserError(f"{' '.join(command[:5])} ... failed with exit code {code}")
    return code

  def read(self, command: Sequence[str], dry: str, check: bool = True) -> str:
    """What it writes to stdout, stripped; '' where it fails and `check` is off. dry: a dry run's answer."""
    if self._dry(command):
      return dry
    with _start(command, stdout=subprocess.PIPE) as process:
      text = process.communicate()[0].decode(errors="replace").strip()
    if process.returncode and check:
      raise UserError(f"{' '.join(command[:5])} ... failed with exit code {process.returncode}")
    return "" if process.returncode else text

  def stream(self, command: Sequence[str]) -> int:
    """Pass its stdout on as it comes; the number of whole lines."""
    if self._dry(command):
      return 0
    lines = 0
    with _start(command, stdout=subprocess.PIPE) as process:
      for line in process.stdout or ():
        lines += line.endswith(b"\n")
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()
    return lines

  def supervise(self, command: Sequence[str], settings: Mapping[str, str] | None = None) -> tuple[int, bool]:
    """Run to the end, passing SIGTERM on; the exit code, and whether this process was asked to stop.

    Ctrl-C reaches the command by the terminal, so here it is only noted: the command ends itself.
    """
    if self._dry(command, settings):
      return 0, False
    asked: list[int] = []
    process = _start(command, settings)

    def note(number: int, _: Any) -> None:
      asked.append(number)
      if number == signal.SIGTERM:
        process.send_signal(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
      return exit_code(process.wait()), bool(asked)
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def become(self, command: Sequence[str], settings: Mapping[str, str] | None = None) -> int:
    """Replace this process by the command; returns only in a dry run."""
    if self._dry(command, settings):
      return 0
    sys.stdout.flush()
    try:
      os.execvpe(command[0], list(command), {**os.environ, **(settings or {})})
    except OSError as error:
      raise UserError(f"cannot run {command[0]}: {error.strerror}") from None

  def _dry(self, command: Sequence[str], settings: Mapping[str, str] | None = None) -> bool:
    if self.dry:
      print(quoted(command, settings), flush=True)
    return self.dry


def _start(command: Sequence[str], settings: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen:
  try:
    return subprocess.Popen(command, env={**os.environ, **(settings or {})}, **options)
  except OSError as error:
    raise UserError(f"cannot run {command[0]}: {error.strerror}") from None


def exit_code(code: int) -> int:
  """Popen's return code as a shell gives it: 128 + the number of the signal that killed."""
  return 128 - code if code < 0 else code


def parser(name: str, text: str) -> cli.Parser:
  """A launcher's parser, with the flag that all have."""
  made = cli.Parser(prog=f"launch.{name}", description=text, epilog="-- COMMAND ...: what `latents` is to do")
  made.add_argument("--dry-run", action="store_true", help="print the commands, run none")
  return made


def parse(made: cli.Parser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
  """The launcher's own flags, and the words after `--`, of which `latents` must know the command."""
  words = list(sys.argv[1:] if argv is None else argv)
  cut = words.index("--") if "--" in words else len(words)
  own, rest = made.parse_args(words[:cut]), words[cut + 1 :]
  if not rest:
    raise UserError("nothing to run: after -- stands a command of latents, such as -- run experiments/images/digits.py")
  cli.parser().parse_known_args(rest)
  return own, rest


def count(text: str) -> int:
  """A whole number of at least 1, for argparse."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
  return int(text)


def limit(text: str) -> int:
  """A whole number of at least 0, for argparse."""
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 0")
  return int(text)


def say(text: str) -> None:
  """A line of the launcher's own, on stderr."""
  print(f"launch: {text}", file=sys.stderr, flush=True)


def guarded(call: Callable[[], int]) -> int:
  """The exit code of a launcher: bad input is one line on stderr and 2, an interrupt 130."""
  try:
    return call()
  except UserError as error:
    say(f"error: {' '.join(str(error).split())}")
    return 2
  except KeyboardInterrupt:
    say("interrupted")
    return 130


def entry(main: Callable[[], int]) -> NoReturn:
  """What `python -m launch.x` calls."""
  sys.exit(main())
