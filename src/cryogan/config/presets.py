"""The presets of `--preset`: settings that differ from the defaults."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The supplementary material's synthetic experiment, number by number; docs/method.md says what cannot be kept.
    "paper": {
        "max_shift": 0.0,
        "critic": "wasserstein",
        "learn_scales": True,
        "envelope_at_nyquist": 0.2,
        "critic_width": 96,
        "ctf_correction": 0.0,
        "augment": False,
        "coarse_to_fine": False,
        "starts": 1,
        "steps": 0,
        "epochs": 16.0,
        "batch_size": 8,
        "critic_steps": 4,
        "penalty": 1e-3,
        "penalty_every": 1,
        "critic_rate": 1e-3,
        "volume_rate": 0.18,  # their 1e-3 a voxel, images of s.d. 1, box 180
        "critic_warmup": 4,
        "hold_rate": 0.0,
        "final_rate": 0.92**16,
        "clip_ramp": 0.125,
        "bf16": False,
        "shared_critic_start": True,
    },
}
# The real-data experiment: what the supplement describes differently from the synthetic one.
PRESETS["paper-experimental"] = PRESETS["paper"] | {
    "max_shift": 10.0,  # triangular; the paper does not say how wide
    "envelope_at_nyquist": 0.4,
    "smoothing": 2.548,  # 2 of their pixels of 1.274 A, if their width is the s.d.
    "final_smoothing": 0.98**12,
    "stable_epochs": 8.0,
    "free_beyond": 15.0,
    "epochs": 12.0,
    "penalty": 1.0,
    "final_rate": 0.92**12,
    "scale_clip": 10.0,
    "clip_ramp": 2 / 12,
}
