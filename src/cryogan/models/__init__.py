"""Maps of known molecules, for simulations."""
