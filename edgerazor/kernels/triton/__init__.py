"""The kernels of `edgerazor.kernels` in Triton, for CUDA tensors. Importing a module of this folder imports triton."""
