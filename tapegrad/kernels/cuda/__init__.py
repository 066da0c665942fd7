"""The same ops on NVIDIA GPUs, and the only place that knows CUDA. Nothing here is imported by `import tapegrad`.

    door         numba.cuda, imported when it is needed: what is missing, Python function -> PTX -> machine code
    functions    what kernels may call: libdevice's functions on a GPU, NumPy's in the simulator
    vectors      accesses to neighbours in PTX become accesses of 16 bytes
    template     kernels as Python functions with free names; launches; the table of builders
    names        those names, for readers and checkers
    blocks       what the threads of a block do together
    scalar       scalar expressions as text
    elementwise  chains of them as kernels: ops, derivatives, fused chains, users' functions
    user_code    users' functions that cannot be read as expressions
    arrays       users' functions of arrays
    derive       their derivatives, by rewriting the source; `slopes` has the table
    backend      an op and layouts -> launches

and a module for each family of ops: reduce, search (argmax, cumsum), sort, gather, movement, softmax, matmul, conv, pooling,
random, linalg, recurrent. `kernels` imports them all. Devices, memory, streams, graphs and cuBLAS are the other modules.
"""
