"""Poses of the particles of a finished run, and a refinement with them."""
