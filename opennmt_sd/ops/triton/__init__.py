"""Kernels of Triton's for the recurrence, on CUDA; Triton comes with torch's CUDA builds.

Nothing here is imported before it is used: there may be no Triton.
"""
