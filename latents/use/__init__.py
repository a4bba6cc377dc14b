"""A finished run at work: its model, samples, score card, latent cache, and the files it writes."""
