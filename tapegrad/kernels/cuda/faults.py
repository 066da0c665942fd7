"""What the driver's statuses mean for people. The numbers are those of `CUresult` in cuda.h, which never change."""

from __future__ import annotations

from ...errors import KernelError, OutOfMemory, TapeError, TapegradError
from ..blocks import FORKED

EXTRA = "pip install 'tapegrad[cuda]'"
OUT_OF_MEMORY, NOT_INITIALIZED, DEINITIALIZED, NO_DEVICE = 2, 3, 4, 100
UNSUPPORTED_PTX = 222
REFUSED_PTX = (221, UNSUPPORTED_PTX, 223)  # where machine code may be taken nonetheless


class CaptureUnsafe(KernelError):
    """The operation cannot be part of a graph. Nothing of the capture has run; run the same outside of one."""


class ContextLost(KernelError):
    """A kernel failed on the GPU. Nothing more can be done with it in this process."""


class NotLoaded(KernelError):
    """The driver cannot load a kernel's code; `status` says why."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class DriverMissing(KernelError):
    """There is no driver, no GPU of that number, or their versions do not fit."""


# A status after which every further call fails with the same one.
LOST = {
    214: "memory of the GPU has an error that could not be corrected",
    220: "a link between GPUs has an error that could not be corrected",
    700: "a kernel read or wrote outside its memory",
    702: "a kernel ran longer than this machine allows, which a GPU with a display does for some seconds",
    709: "the context was destroyed, by another library of this process",
    710: "an assertion in a kernel failed",
    714: "a kernel's stack overflowed or was overwritten",
    715: "a kernel came to an illegal instruction",
    716: "a kernel read or wrote at an address that is no multiple of what it reads",
    717: "a kernel used an address of the wrong kind of memory",
    718: "a kernel jumped out of its code",
    719: "a kernel failed",
}

# The status: what came, and what to try.
MISSING = {
    NO_DEVICE: "the NVIDIA driver finds no GPU; is one built in, and does CUDA_VISIBLE_DEVICES hide it?",
    34: "the driver is a stub library, for linking only; take its folder out of LD_LIBRARY_PATH",
    36: "the NVIDIA driver is too old for this call; install a newer one from nvidia.com",
    101: "there is no GPU of that number",
    802: "the GPUs of this machine are still starting, or the fabric manager does not run",
    803: "the NVIDIA driver's library and kernel module are of two versions, as after an update; restart the machine",
    804: "the compatibility package of CUDA does not support this GPU; remove it, or install a newer NVIDIA driver",
}
COMPILING = {
    200: "the machine code is damaged",
    209: "the machine code is for another GPU",
    218: "the PTX code has an error",
    221: "the driver's PTX compiler is missing; install the whole NVIDIA driver",
    UNSUPPORTED_PTX: "the PTX code is newer than the NVIDIA driver; install a newer driver, or an older CUDA toolkit",
    223: "the driver may not compile (CUDA_DISABLE_PTX_JIT or a policy of this machine)",
    301: "the code could not be found",
    500: "the code has no kernel of that name",
}
CAPTURE = range(900, 909)


def fault(status: int, name: str, where: str, doing: str) -> TapegradError:
    """The error for a status other than success.

    name: the driver's name of it. where: the device. doing: what was asked for, as in "launching add".
    """
    code = f"{where}, {doing}: "
    if status == OUT_OF_MEMORY:
        return OutOfMemory(f"{code}the GPU has no more memory ({name}). Use smaller batches.")
    if status == NOT_INITIALIZED:  # the driver's answer in the child of a fork
        return TapeError(FORKED)
    if status in LOST:
        return ContextLost(
            f"{code}{LOST[status]} ({name}). Kernels run after the call that asked for them, so it may have been an earlier one. "
            "The GPU cannot be used any more in this process: restart it. compute-sanitizer finds the kernel."
        )
    if status in MISSING:
        return DriverMissing(f"{code}{MISSING[status]} ({name}).")
    if status in COMPILING:
        return KernelError(f"{code}{COMPILING[status]} ({name}).")
    if status in CAPTURE:
        return CaptureUnsafe(f"{code}this cannot be part of a graph ({name}); it has to run outside of a capture.")
    if status == 701:
        return KernelError(
            f"{code}a block needs more registers or shared memory than there are ({name}); use fewer threads."
        )
    if status == DEINITIALIZED:
        return KernelError(f"{code}the process is ending, and CUDA has ended ({name}).")
    return KernelError(f"{code}CUDA reports {name}.")
