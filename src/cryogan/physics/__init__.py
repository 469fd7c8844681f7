"""The physics simulator of equation (1): project, shift, CTF, noise."""
