"""The room for CUDA kernels: the same ops and the same steps on the GPU, and the only place that will import numba.cuda.

There is no kernel in it yet. A device is a name in a layout, and a backend is an object with `prepare(op, ins, attrs)` in
`kernels.prepare.BACKENDS`; nothing outside this folder will need to know more.
"""
