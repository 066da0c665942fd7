"""The tasks of `benchmarks/tasks.py` in other libraries, and the processes in which contenders wait for their turns."""
