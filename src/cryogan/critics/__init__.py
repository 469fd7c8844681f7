"""How the volume is learned: a critic compares real with simulated images."""
