"""Batches: the loader, the order of samples, threads, data larger than memory."""
