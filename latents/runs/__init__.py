"""From a declaration to a finished run."""
