"""Folders for MLX: affine groups in stock layers of mlx_lm."""
