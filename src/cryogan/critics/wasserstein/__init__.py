"""The paper's convolutional critic, trained by Algorithm 1."""
