"""Pictures, discrete codes."""
