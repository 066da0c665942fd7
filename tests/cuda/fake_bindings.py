"""A stand-in for `cuda.bindings.driver`: the calls that `tapegrad.kernels.cuda.driver` uses, over host memory.

It checks number and types of the arguments, keeps contexts, streams and captures as the driver does, runs Python functions for
kernels, and can be told to answer any call with any status. `SIGNATURES` are the argument names of the real bindings, 12.9 and
13.5 alike; a test compares them with the bindings where those are installed.
"""

from __future__ import annotations

import ctypes
import enum
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

from tapegrad.kernels.cuda.simulated_streams import Node, Queues


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_DEINITIALIZED = 4
    CUDA_ERROR_STUB_LIBRARY = 34
    CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER = 36
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_IMAGE = 200
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209
    CUDA_ERROR_ECC_UNCORRECTABLE = 214
    CUDA_ERROR_INVALID_PTX = 218
    CUDA_ERROR_NVLINK_UNCORRECTABLE = 220
    CUDA_ERROR_JIT_COMPILER_NOT_FOUND = 221
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222
    CUDA_ERROR_JIT_COMPILATION_DISABLED = 223
    CUDA_ERROR_FILE_NOT_FOUND = 301
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701
    CUDA_ERROR_LAUNCH_TIMEOUT = 702
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709
    CUDA_ERROR_ASSERT = 710
    CUDA_ERROR_HARDWARE_STACK_ERROR = 714
    CUDA_ERROR_ILLEGAL_INSTRUCTION = 715
    CUDA_ERROR_MISALIGNED_ADDRESS = 716
    CUDA_ERROR_INVALID_ADDRESS_SPACE = 717
    CUDA_ERROR_INVALID_PC = 718
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_SYSTEM_NOT_READY = 802
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803
    CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901
    CUDA_ERROR_STREAM_CAPTURE_MERGE = 902
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906
    CUDA_ERROR_CAPTURED_EVENT = 907
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908
    CUDA_ERROR_UNKNOWN = 999


class CUdevice_attribute(enum.IntEnum):
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES = 100


class CUstream_flags(enum.IntEnum):
    CU_STREAM_NON_BLOCKING = 1


class CUevent_flags(enum.IntEnum):
    CU_EVENT_DISABLE_TIMING = 2


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


class CUjit_option(enum.IntEnum):
    CU_JIT_ERROR_LOG_BUFFER = 5
    CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6


class CUfunction_attribute(enum.IntEnum):
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8


ENUMS = (
    CUresult,
    CUdevice_attribute,
    CUstream_flags,
    CUevent_flags,
    CUstreamCaptureMode,
    CUjit_option,
    CUfunction_attribute,
)
S = CUresult

SIGNATURES = {
    "cuCtxSetCurrent": "ctx",
    "cuDeviceGet": "ordinal",
    "cuDeviceGetAttribute": "attrib dev",
    "cuDeviceGetCount": "",
    "cuDeviceGetName": "length dev",
    "cuDevicePrimaryCtxRetain": "dev",
    "cuDeviceTotalMem": "dev",
    "cuDriverGetVersion": "",
    "cuEventCreate": "Flags",
    "cuEventDestroy": "hEvent",
    "cuEventRecord": "hEvent hStream",
    "cuEventSynchronize": "hEvent",
    "cuFuncLoad": "function",
    "cuFuncSetAttribute": "hfunc attrib value",
    "cuGetErrorName": "error",
    "cuGraphDestroy": "hGraph",
    "cuGraphExecDestroy": "hGraphExec",
    "cuGraphGetNodes": "hGraph numNodes",
    "cuGraphInstantiate": "hGraph flags",
    "cuGraphLaunch": "hGraphExec hStream",
    "cuInit": "Flags",
    "cuLaunchKernel": "f gridDimX gridDimY gridDimZ blockDimX blockDimY blockDimZ sharedMemBytes hStream kernelParams extra",
    "cuMemAlloc": "bytesize",
    "cuMemFree": "dptr",
    "cuMemFreeHost": "p",
    "cuMemGetInfo": "",
    "cuMemHostAlloc": "bytesize Flags",
    "cuMemcpyDtoDAsync": "dstDevice srcDevice ByteCount hStream",
    "cuMemcpyDtoHAsync": "dstHost srcDevice ByteCount hStream",
    "cuMemcpyHtoDAsync": "dstDevice srcHost ByteCount hStream",
    "cuMemsetD8Async": "dstDevice uc N hStream",
    "cuModuleGetFunction": "hmod name",
    "cuModuleLoadDataEx": "image numOptions options optionValues",
    "cuStreamBeginCapture": "hStream mode",
    "cuStreamCreate": "Flags",
    "cuStreamEndCapture": "hStream",
    "cuStreamSynchronize": "hStream",
    "cuStreamWaitEvent": "hStream hEvent Flags",
    "cuThreadExchangeStreamCaptureMode": "mode",
}


class Handle:
    """An object of the driver, of one kind."""

    def __init__(self, kind: str, number: int, **what: Any):
        self.kind, self.number, self.alive = kind, number, True
        self.__dict__.update(what)

    def __int__(self) -> int:
        return self.number


KINDS: dict[str, Any] = {
    "ctx": "context",
    "hStream": "stream",
    "hEvent": "event",
    "hGraph": "graph",
    "hGraphExec": "exec",
    "f": "function",
    "function": "function",
    "hfunc": "function",
    "hmod": "module",
    "attrib": (CUdevice_attribute, CUfunction_attribute),
    "error": CUresult,
    "mode": CUstreamCaptureMode,
    "name": bytes,
    "image": bytes,
    "options": list,
    "optionValues": list,
}


class Fake:
    """The module. calls: names of all calls so far. answers: name -> statuses that its next calls give instead."""

    CUDA_VERSION = 13000
    CU_MEMHOSTALLOC_PORTABLE = 1

    def __init__(self, devices: int = 1, version: int = 13000, memory: int = 1 << 24, deferred: tuple[int, ...] = ()):
        self.processors = (132,) * devices
        self.coherent = False
        self.queues = Queues(deferred)  # named by the order in which the streams were made
        self.streams = 0
        for kind in ENUMS:
            setattr(self, kind.__name__, kind)
        self.devices, self.version, self.total = devices, version, memory
        self.calls: list[str] = []
        self.answers: dict[str, list[int]] = {}
        self.log = b""  # of the compiler
        self.kernels: dict[bytes, Any] = {}  # name -> a function of (grid, block, shared, words)
        self.words: dict[bytes, int] = {}  # name -> how many
        self.memory: dict[int, np.ndarray] = {}
        self.local = threading.local()
        self.capture: SimpleNamespace | None = None
        self.made: list[Handle] = []

    def __getattr__(self, name: str):
        if name not in SIGNATURES:
            raise AttributeError(name)
        names = SIGNATURES[name].split()
        action = getattr(Fake, "do_" + name)

        def call(*arguments: Any) -> tuple:
            if name == "cuGraphGetNodes" and len(arguments) == 1:
                arguments = (*arguments, 0)
            assert len(arguments) == len(names), name
            for parameter, value in zip(names, arguments, strict=True):
                self.check(name, parameter, value)
            self.calls.append(name)
            answers = self.answers.get(name)
            if answers:
                status = CUresult(answers.pop(0))
                if status:
                    return (
                        (status, None, 0)
                        if name in ("cuMemGetInfo", "cuGraphGetNodes")
                        else (status, None)[: self.parts(name)]
                    )
            found = action(self, *arguments)
            if isinstance(found, CUresult) and name != "cuGetErrorName":
                return (found, None)[: self.parts(name)]
            return (
                (S.CUDA_SUCCESS,)
                if found is None
                else (S.CUDA_SUCCESS, *(found if isinstance(found, tuple) else (found,)))
            )

        return call

    @staticmethod
    def parts(name: str) -> int:
        one = (
            "SetCurrent",
            "Destroy",
            "Record",
            "Synchronize",
            "FuncLoad",
            "SetAttribute",
            "Init",
            "Launch",
            "Free",
            "Async",
            "Begin",
        )
        return 1 if any(word in name for word in one) else 2

    @staticmethod
    def check(call: str, parameter: str, value: Any) -> None:
        kind = KINDS.get(parameter)
        if call == "cuEventRecord" and type(value) is int:  # another library's stream; the bindings take its handle
            return
        if isinstance(kind, str):
            assert isinstance(value, Handle) and value.kind == kind and value.alive, (call, parameter, value)
        elif kind is not None:
            assert isinstance(value, kind), (call, parameter, value)
        else:
            assert type(value) in (int, CUresult) or (isinstance(value, Handle) and value.kind == "device"), (
                call,
                parameter,
                value,
            )

    def handle(self, kind: str, **what: Any) -> Handle:
        number = what.pop("number", len(self.made) + 1000)
        self.made.append(Handle(kind, number, **what))
        return self.made[-1]

    def alive(self, kind: str) -> int:
        return sum(h.kind == kind and h.alive for h in self.made)

    def ordered(self, stream: Handle, action) -> None:
        """Do it, or record it where the stream is captured."""
        assert getattr(self.local, "context", None) is not None, "no context is current"
        if self.capture is not None and self.capture.stream is stream:
            self.capture.nodes.append(action)
        else:
            self.queues.ask(stream.place, Node("work", "", action))

    def safe(self) -> CUresult | None:
        """What a call that may not happen within a capture answers."""
        capture = self.capture
        if capture is not None and capture.thread == threading.get_ident() and self.mode() != 2:
            capture.valid = False
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        return None

    def mode(self) -> int:
        return getattr(self.local, "mode", 0)

    # devices

    def do_cuInit(self, flags):
        assert flags == 0

    def do_cuDriverGetVersion(self):
        return self.version

    def do_cuGetErrorName(self, error):
        return error.name.encode()

    def do_cuDeviceGetCount(self):
        return self.devices

    def do_cuDeviceGet(self, ordinal):
        return self.handle("device", ordinal=ordinal) if 0 <= ordinal < self.devices else S.CUDA_ERROR_INVALID_DEVICE

    def do_cuDeviceGetName(self, length, device):
        return f"Fake {device.ordinal}".encode().ljust(length, b"\0")

    def do_cuDeviceTotalMem(self, device):
        return self.total

    def do_cuDeviceGetAttribute(self, attribute, device):
        return {16: self.processors[device.ordinal], 75: 9, 76: 0, 97: 227 << 10, 100: int(self.coherent)}[
            int(attribute)
        ]

    def do_cuDevicePrimaryCtxRetain(self, device):
        return self.handle("context", ordinal=device.ordinal)

    def do_cuCtxSetCurrent(self, context):
        self.local.context = context

    # memory

    def do_cuMemAlloc(self, size):
        assert size > 0
        if self.safe():
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        if sum(m.size for m in self.memory.values()) + size > self.total:
            return S.CUDA_ERROR_OUT_OF_MEMORY
        raw = np.zeros(size + 256, np.uint8)
        found = raw[-raw.ctypes.data % 256 :][:size]
        self.memory[found.ctypes.data] = found
        return self.handle("address", number=found.ctypes.data)

    def do_cuMemFree(self, address):
        if self.safe():
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        return None if self.memory.pop(address, None) is not None else S.CUDA_ERROR_INVALID_VALUE

    def do_cuMemGetInfo(self):
        return self.total - sum(m.size for m in self.memory.values()), self.total

    def do_cuMemHostAlloc(self, size, flags):
        if self.safe():
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        found = np.zeros(size, np.uint8)
        self.handle("host", number=found.ctypes.data, array=found)
        return found.ctypes.data

    def do_cuMemFreeHost(self, address):
        if self.safe():
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        (found,) = [h for h in self.made if h.kind == "host" and h.number == address and h.alive]
        found.alive = False
        return None

    def inside(self, address: int, size: int) -> None:
        assert any(a <= address and address + size <= a + m.size for a, m in self.memory.items()), "no device memory"

    def do_cuMemcpyHtoDAsync(self, target, source, size, stream):
        pinned = [h for h in self.made if h.kind == "host" and h.alive]
        late = any(h.number <= source and source + size <= h.number + h.array.size for h in pinned)
        data = None if late else ctypes.string_at(source, size)  # pageable memory may change at once

        def action():
            self.inside(target, size)
            ctypes.memmove(target, source if data is None else data, size)

        self.ordered(stream, action)

    def do_cuMemcpyDtoHAsync(self, target, source, size, stream):
        def action():
            self.inside(source, size)
            ctypes.memmove(target, source, size)

        self.ordered(stream, action)

    def do_cuMemcpyDtoDAsync(self, target, source, size, stream):
        def action():
            self.inside(source, size)
            self.inside(target, size)
            ctypes.memmove(target, source, size)

        self.ordered(stream, action)

    def do_cuMemsetD8Async(self, target, byte, size, stream):
        def action():
            self.inside(target, size)
            ctypes.memset(target, byte, size)

        self.ordered(stream, action)

    # streams and events

    def do_cuStreamCreate(self, flags):
        assert flags == 1
        self.streams += 1
        return self.handle("stream", place=self.streams - 1)

    def do_cuStreamSynchronize(self, stream):
        if self.capture is not None and self.capture.stream is stream:
            self.capture.valid = False
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        refused = self.safe()
        if refused is None:
            self.queues.finish(stream.place)
        return refused

    def do_cuStreamWaitEvent(self, stream, event, flags):
        assert flags == 0
        if self.capture is not None and self.capture.stream is stream:
            self.capture.valid = False
            return S.CUDA_ERROR_STREAM_CAPTURE_ISOLATION  # of an event that was recorded outside
        self.queues.wait(stream.place, event.moment)
        return None

    def do_cuEventCreate(self, flags):
        assert flags == 2
        return self.handle("event", moment=None)

    def do_cuEventDestroy(self, event):
        event.alive = False

    def do_cuEventRecord(self, event, stream):
        assert self.capture is None or self.capture.stream is not stream
        event.moment = self.queues.now(("foreign", stream) if type(stream) is int else stream.place)

    def do_cuEventSynchronize(self, event):
        refused = self.safe()
        if refused is None and event.moment is not None:
            self.queues.finish(*event.moment)
        return refused

    # kernels

    def do_cuModuleLoadDataEx(self, image, count, options, values):
        if self.safe():
            return S.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        assert image.endswith(b"\0") or image.startswith(b"\x7fELF")
        assert count == len(options) == len(values) == 2
        assert isinstance(values[0], bytearray) and values[1] == len(values[0])
        if image.startswith(b"bad"):
            values[0][: len(self.log)] = self.log
            return S.CUDA_ERROR_INVALID_PTX
        return self.handle("module", image=image)

    def do_cuModuleGetFunction(self, module, name):
        if name not in self.kernels:
            return S.CUDA_ERROR_NOT_FOUND
        return self.handle("function", name=name, module=module, shared=48 << 10)

    def do_cuFuncLoad(self, function):
        pass

    def do_cuFuncSetAttribute(self, function, attribute, value):
        assert attribute == 8
        function.shared = value

    def do_cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        assert extra == 0
        if shared > function.shared:
            return S.CUDA_ERROR_INVALID_VALUE
        pointers = (ctypes.c_void_p * self.words[function.name]).from_address(parameters)
        values = [ctypes.c_int64.from_address(p).value for p in pointers]  # read now, as the driver does
        self.ordered(stream, lambda: self.kernels[function.name]((gx, gy, gz), (bx, by, bz), shared, values))
        return None

    # graphs

    def do_cuStreamBeginCapture(self, stream, mode):
        if self.capture is not None:
            return S.CUDA_ERROR_INVALID_VALUE
        self.capture = SimpleNamespace(stream=stream, nodes=[], valid=True, thread=threading.get_ident(), mode=mode)
        return None

    def do_cuStreamEndCapture(self, stream):
        capture, self.capture = self.capture, None
        assert capture is not None and capture.stream is stream
        if capture.thread != threading.get_ident():
            return S.CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
        if not capture.valid:
            return S.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        return self.handle("graph", nodes=capture.nodes)

    def do_cuThreadExchangeStreamCaptureMode(self, mode):
        before = CUstreamCaptureMode(self.mode())
        self.local.mode = int(mode)
        return before

    def do_cuGraphGetNodes(self, graph, count):
        return [None] * len(graph.nodes), len(graph.nodes)

    def do_cuGraphInstantiate(self, graph, flags):
        assert flags == 0
        return self.handle("exec", nodes=list(graph.nodes))

    def do_cuGraphDestroy(self, graph):
        graph.alive = False

    def do_cuGraphExecDestroy(self, made):
        made.alive = False

    def do_cuGraphLaunch(self, made, stream):
        for action in made.nodes:
            self.ordered(stream, action)
