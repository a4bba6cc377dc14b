"""Names that outlive files: a part is stored under the first module path that its class ever had."""

# first name -> where the class stands now. A class that moves gets a line here, and keeps its name in every address
# and stored experiment. A line is never taken out.
MOVED = {
  "latents.experiment:Mesh": "latents.declare.stages:Mesh",
  "latents.experiment:Stage1": "latents.declare.stages:Stage1",
  "latents.experiment:Stage2": "latents.declare.stages:Stage2",
  "latents.experiment:Evaluation": "latents.declare.stages:Evaluation",
  "latents.experiment:Experiment": "latents.declare.stages:Experiment",
  "latents.autoencoder:Autoencoder": "latents.autoencoders.plain:Autoencoder",
  "latents.optim:Adam": "latents.optim.adam:Adam",
  "latents.diffusion.samplers:Euler": "latents.diffusion.samplers.euler:Euler",
  "latents.diffusion.samplers:Heun": "latents.diffusion.samplers.heun:Heun",
}
FIRST = {now: first for first, now in MOVED.items()}


def first_name(part: type) -> str:
  """'module:Class' under which a class is stored."""
  now = f"{part.__module__}:{part.__qualname__}"
  return FIRST.get(now, now)


def present_name(stored: str) -> str:
  """The name in a stored experiment -> where the class stands now."""
  return MOVED.get(stored, stored)
