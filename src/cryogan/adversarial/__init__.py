"""Learning the volume against a critic: equations (10) to (13), Algorithm 1."""
