"""Pictures, continuous latents."""
