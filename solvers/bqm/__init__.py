"""dimod's models as problems, and models with any number of ones."""
