"""Raw signals: priors without an autoencoder."""
