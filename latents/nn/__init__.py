"""Layers: small flax modules and functions on arrays; they know nothing of autoencoders or priors.

Every layer takes [B,*S,C] or [B,N,C], has a `dtype` field (compute dtype; parameters and statistics are
float32), and is deterministic unless `train`.
"""
