"""Running a declaration: state, steps, sharding, checkpoints and the one loop.

`build_step(experiment, stage, mesh)` gives a `Program`: everything that training, planning and tests
need to know of a stage. `loop.train` runs a program; it knows nothing of models.
"""
