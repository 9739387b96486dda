"""Kernels: one idea a file, with a PyTorch reference. Local tensors only; imports nothing of megasbp."""
