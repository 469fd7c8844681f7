"""Several processes that work on one run."""
