"""Files of the hub, against a small server on the loopback that answers as the hub does."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

from latents import main
from latents.interop import hub
from latents.store.folder import open_folder
from tests import releases

pytest.importorskip("huggingface_hub")

COMMIT, OLD = "c0ffee" + "0" * 34, "0ff1ce" + "0" * 34
FILE = "diffusion_pytorch_model.safetensors"


class Hub(http.server.BaseHTTPRequestHandler):
  """HEAD and GET of /OWNER/NAME/resolve/REVISION/FILE."""

  files: ClassVar[dict] = {}  # (repository, file) -> bytes
  revisions: ClassVar = {"main": COMMIT, COMMIT: COMMIT, "v1": OLD, OLD: OLD}

  def do_HEAD(self):
    self.answer()

  def do_GET(self):
    self.answer(body=True)

  def answer(self, body: bool = False):
    if "/resolve/" not in self.path:
      return self.fault(404, "")
    owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
    repository = f"{owner}/{name}"
    if repository == "some/gated":
      return self.fault(403, "GatedRepo")
    if not any(known == repository for known, _ in self.files):
      return self.fault(404, "RepoNotFound")
    if revision not in self.revisions:
      return self.fault(404, "RevisionNotFound")
    data = self.files.get((repository, file))
    if data is None:
      return self.fault(404, "EntryNotFound", self.revisions[revision])
    self.send_response(200)
    self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
    self.send_header("X-Repo-Commit", self.revisions[revision])
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if body:
      self.wfile.write(data)
    return None

  def fault(self, code: int, why: str, commit: str = ""):
    self.send_response(code)
    self.send_header("X-Error-Code", why)
    self.send_header("Content-Length", "0")
    if commit:
      self.send_header("X-Repo-Commit", commit)
    self.end_headers()

  def log_message(self, *_):
    pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hub")
  file = releases.write(folder / FILE, config={"scaling_factor": 0.5, "sample_size": 16})
  weights, config = file.read_bytes(), (folder / "config.json").read_bytes()
  Hub.files = {
    ("some/vae", FILE): weights,
    ("some/vae", "config.json"): config,
    ("some/pipeline", f"vae/{FILE}"): weights,
    ("some/pipeline", "vae/config.json"): config,
    ("some/file", "ae.safetensors"): weights,
  }
  made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
  threading.Thread(target=made.serve_forever, daemon=True).start()
  yield f"http://127.0.0.1:{made.server_port}"
  made.shutdown()
  made.server_close()


CALLS = """
import contextlib, io, json, sys
from latents import main
told = []
for words in json.load(sys.stdin):
  err = io.StringIO()
  with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
    code = main.main(words)
  told.append([code, err.getvalue()])
print(json.dumps(told))
"""


def call(where: str, home, *lines, **more) -> list[tuple[int, str]]:
  """Commands in a process of its own, whose library reads its settings when it is imported: (exit code, stderr)."""
  env = {**os.environ, "HF_ENDPOINT": where, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
  for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
    env.pop(name, None)
  words = json.dumps([["import", *map(str, line)] for line in lines])
  made = subprocess.run([sys.executable, "-c", CALLS], env=env | more, input=words, capture_output=True, text=True)
  assert made.returncode == 0, made.stderr
  return json.loads(made.stdout)


def test_a_release_of_the_hub_comes_in_and_stays(server, tmp_path):
  to = ("--runs", tmp_path, "--name")
  lines = (
    ("hf:some/vae", *to, "x"),
    ("hf:some/pipeline@v1", "--layout", "sd", *to, "y"),
    ("hf:some/file:ae.safetensors", "--layout", "sd", *to, "z"),
  )
  assert [code for code, _ in call(server, tmp_path / "home", *lines)] == [0, 0, 0]
  one, two = (open_folder(tmp_path / name) for name in "xy")
  (start,) = one.experiment.stage1.start
  assert start.stage.path == f"hf:some/vae@{COMMIT}:{FILE}" and start.stage.statistics == (0.5, 0.0)
  assert one.experiment.stage1.data.shape == (16, 16, 3)  # as its config.json says
  (start,) = two.experiment.stage1.start
  assert start.stage.path == f"hf:some/pipeline@{OLD}:vae/{FILE}" and start.stage.statistics == (0.18215, 0.0)
  # offline, from its cache
  ((code, said),) = call(server, tmp_path / "home", ("hf:some/vae", *to, "again"), HF_HUB_OFFLINE="1")
  assert code == 0, said
  assert open_folder(tmp_path / "again").artefact(1).latents == one.artefact(1).latents


WRONG = {
  "hf:some/none": "the hub has no some/none, or it is private",
  "hf:some/vae:none.safetensors": "some/vae has no file none.safetensors",
  "hf:some/file": f"some/file has no file {FILE} or vae/{FILE} (say which one, hf:some/file:FILE)",
  "hf:some/vae@v9": "some/vae has no revision v9",
  "hf:some/gated": "some/gated is gated: ask for access on its page and log in",
  "hf:vae": "hf:vae is no file of the hub: hf:OWNER/NAME",
  "hf:some/vae@": "is no file of the hub",
}


def test_what_the_hub_has_not(server, tmp_path):
  lines = [(asked, "--name", "x", "--runs", tmp_path / "runs") for asked in WRONG]
  for (asked, told), (code, said) in zip(WRONG.items(), call(server, tmp_path, *lines), strict=True):
    assert code == 2 and told in said and said.count("\n") == 1, (asked, said)
  none = ("hf:some/vae", "--name", "x", "--runs", tmp_path / "runs")
  unreached(tmp_path, *call(server, tmp_path / "empty", none, HF_HUB_OFFLINE="1"))


@pytest.mark.slow
def test_where_nobody_answers(tmp_path):
  """The library tries several times, and waits between."""
  none = ("hf:some/vae", "--name", "x", "--runs", tmp_path / "runs")
  unreached(tmp_path, *call("http://127.0.0.1:9", tmp_path / "empty", none))


def unreached(tmp_path, ending):
  code, said = ending
  assert code == 2 and said.count("\n") == 1, said
  assert "is not in the cache, and the hub cannot be reached (no network, or HF_HUB_OFFLINE)" in said
  assert not (tmp_path / "runs").exists()


def test_without_the_library(monkeypatch, capsys, tmp_path):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  assert main.main(["import", "hf:some/vae", "--name", "x", "--runs", str(tmp_path)]) == 2
  assert capsys.readouterr().err == ("latents: error: files of the hub need huggingface_hub: pip install -e '.[hub]'\n")
  assert hub.is_hub("hf:a/b") and not hub.is_hub("/hf:a/b")
