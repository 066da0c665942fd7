"""What `asv_bench/gpu_report.py` measures on a GPU, a module for each section of its document.

A module has ROWS; nothing in it touches a GPU or imports PyTorch before a row is measured.
"""
