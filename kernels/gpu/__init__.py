"""The Triton kernels: each file holds those of the file of its name one folder up, and their launches.

Imported only where they run; `route` decides that.
"""
