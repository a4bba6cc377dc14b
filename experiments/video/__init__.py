"""Video: clips, whose latents are grids in space and time."""
