"""Kernels: one idea a file, a PyTorch reference beside each. Local tensors only; imports nothing of megasbp."""
