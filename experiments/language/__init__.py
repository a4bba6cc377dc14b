"""Language: text as a few continuous latents."""
