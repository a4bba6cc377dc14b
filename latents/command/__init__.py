"""What the command line needs: flags from a declaration, and the catalogue of experiments."""
