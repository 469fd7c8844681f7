"""CryoGAN as a job of the programs in which people's particles already are."""
