"""What lies on the disk: a run's folder, and the artefacts of finished stages in it."""
