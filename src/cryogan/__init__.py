"""CryoGAN: a 3-D map from particles of unknown pose, learned by matching distributions."""

__version__ = "0.1.0"
