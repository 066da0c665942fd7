/* A stand-in for NVIDIA's driver library, over host memory: the functions that tapegrad calls, under the names and with the
   arguments of cuda.h. Through it the real cuda-bindings run on a machine without a GPU. Built by test_driver_failures.py:
   cc -shared -fPIC -o libcuda.so.1 libcuda.c. Any module has the one kernel "add": (float *x, float *y, int64 n), y += x. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int status;
typedef unsigned long long address;
enum { MOST = 64 };

typedef struct { int kind; void *to; const void *from; size_t n; int byte; } node; /* 0 copy, 1 fill, 2 add */
typedef struct { int count; node nodes[MOST]; } graph;
typedef struct { int capturing; graph *recorded; } stream;

static int context, module, function, mode, event;
static __thread void *current;

static void run(const node *k)
{
    if (k->kind == 0) memmove(k->to, k->from, k->n);
    if (k->kind == 1) memset(k->to, k->byte, k->n);
    if (k->kind == 2)
        for (size_t i = 0; i < k->n; i++) ((float *)k->to)[i] += ((const float *)k->from)[i];
}

static status put(stream *s, int kind, void *to, const void *from, size_t n, int byte)
{
    node k = {kind, to, from, n, byte};
    if (current != &context) return 201;
    if (!s->capturing) run(&k);
    else if (s->recorded->count < MOST) s->recorded->nodes[s->recorded->count++] = k;
    else return 999;
    return 0;
}

status cuInit(unsigned flags) { return flags ? 1 : 0; }
status cuDriverGetVersion(int *version) { *version = 13000; return 0; }
status cuDeviceGetCount(int *n) { *n = 1; return 0; }
status cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal ? 101 : 0; }
status cuDeviceGetName(char *name, int n, int device) { strncpy(name, "Stub", n); return device == 7 ? 0 : 101; }
status cuDeviceTotalMem_v2(size_t *n, int device) { *n = (size_t)5 << 30; return device == 7 ? 0 : 101; }
status cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 16 ? 132 : attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 97 ? 232448 : attribute == 100 ? 0 : -1;
    return device == 7 ? 0 : 101;
}
status cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return device == 7 ? 0 : 101; }
status cuCtxSetCurrent(void *ctx) { current = ctx; return ctx == &context ? 0 : 201; }
status cuGetErrorName(status s, const char **name)
{
    *name = s == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : s == 218 ? "CUDA_ERROR_INVALID_PTX" : s == 500 ? "CUDA_ERROR_NOT_FOUND" : NULL;
    return *name ? 0 : 1;
}

status cuMemAlloc_v2(address *made, size_t n)
{
    void *p;
    if (n > (size_t)5 << 30 || posix_memalign(&p, 256, n)) return 2;
    *made = (address)(uintptr_t)p;
    return 0;
}
status cuMemFree_v2(address p) { free((void *)(uintptr_t)p); return 0; }
status cuMemGetInfo_v2(size_t *left, size_t *all) { *left = 3; *all = (size_t)5 << 30; return 0; }
status cuMemHostAlloc(void **made, size_t n, unsigned flags) { return flags != 1 ? 1 : posix_memalign(made, 256, n) ? 2 : 0; }
status cuMemFreeHost(void *p) { free(p); return 0; }
status cuMemcpyHtoDAsync_v2(address to, const void *from, size_t n, stream *s) { return put(s, 0, (void *)(uintptr_t)to, from, n, 0); }
status cuMemcpyDtoHAsync_v2(void *to, address from, size_t n, stream *s) { return put(s, 0, to, (void *)(uintptr_t)from, n, 0); }
status cuMemcpyDtoDAsync_v2(address to, address from, size_t n, stream *s)
{
    return put(s, 0, (void *)(uintptr_t)to, (void *)(uintptr_t)from, n, 0);
}
status cuMemsetD8Async(address to, unsigned char byte, size_t n, stream *s) { return put(s, 1, (void *)(uintptr_t)to, NULL, n, byte); }

status cuStreamCreate(stream **made, unsigned flags) { *made = calloc(1, sizeof(stream)); return flags == 1 ? 0 : 1; }
status cuStreamSynchronize(stream *s) { return s->capturing ? 900 : 0; }
status cuEventCreate(void **made, unsigned flags) { *made = &event; return flags == 2 ? 0 : 1; }
status cuEventDestroy_v2(void *e) { return e == &event ? 0 : 400; }
status cuEventRecord(void *e, stream *s) { return e == &event && !s->capturing ? 0 : 400; }
status cuStreamWaitEvent(stream *s, void *e, unsigned flags) { return e == &event && !s->capturing && !flags ? 0 : 400; }
status cuEventSynchronize(void *e) { return e == &event ? 0 : 400; }

status cuModuleLoadDataEx(void **made, const void *image, unsigned n, int *options, void **values)
{
    if (n != 2 || options[0] != 5 || options[1] != 6 || (size_t)values[1] < 100) return 1;
    *made = &module;
    if (strncmp(image, "bad", 3)) return 0;
    strcpy(values[0], "line 1; fatal: this is bad");
    return 218;
}
status cuModuleGetFunction(void **made, void *m, const char *name) { *made = &function; return m != &module ? 400 : strcmp(name, "add") ? 500 : 0; }
status cuFuncLoad(void *f) { return f == &function ? 0 : 400; }
status cuFuncSetAttribute(void *f, int attribute, int value) { return f == &function && attribute == 8 && value > 49152 ? 0 : 1; }
status cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      stream *s, void **words, void **extra)
{
    if (f != &function || gx != 3 || gy != 2 || gz != 1 || bx != 32 || by != 4 || bz != 1 || shared > 65536 || extra) return 1;
    return put(s, 2, *(void **)words[1], *(void **)words[0], *(int64_t *)words[2], 0);
}

status cuStreamBeginCapture_v2(stream *s, int how)
{
    if (how != 1 || s->capturing) return 1;
    s->capturing = 1;
    s->recorded = calloc(1, sizeof(graph));
    return 0;
}
status cuStreamEndCapture(stream *s, graph **made) { *made = s->recorded; s->capturing = 0; return 0; }
status cuThreadExchangeStreamCaptureMode(int *how) { int before = mode; mode = *how; *how = before; return 0; }
status cuGraphGetNodes(graph *g, void **nodes, size_t *n) { *n = g->count; return nodes ? 1 : 0; }
status cuGraphInstantiateWithFlags(graph **made, graph *g, unsigned long long flags)
{
    *made = malloc(sizeof(graph));
    **made = *g;
    return flags ? 1 : 0;
}
status cuGraphDestroy(graph *g) { free(g); return 0; }
status cuGraphExecDestroy(graph *g) { free(g); return 0; }
status cuGraphLaunch(graph *g, stream *s)
{
    if (current != &context || s->capturing) return 201;
    for (int i = 0; i < g->count; i++) run(g->nodes + i);
    return 0;
}

/* The bindings ask for every function by its name without a version. */
#define AS(name, function) {#name, (void *)function}
#define IS(name) AS(name, name)
static const struct { const char *name; void *function; } table[] = {
    IS(cuInit), IS(cuDriverGetVersion), IS(cuDeviceGetCount), IS(cuDeviceGet), IS(cuDeviceGetName), IS(cuDeviceGetAttribute),
    AS(cuDeviceTotalMem, cuDeviceTotalMem_v2), IS(cuDevicePrimaryCtxRetain), IS(cuCtxSetCurrent), IS(cuGetErrorName),
    AS(cuMemAlloc, cuMemAlloc_v2), AS(cuMemFree, cuMemFree_v2), AS(cuMemGetInfo, cuMemGetInfo_v2), IS(cuMemHostAlloc),
    IS(cuMemFreeHost), AS(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2), AS(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2),
    AS(cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2), IS(cuMemsetD8Async), IS(cuStreamCreate), IS(cuStreamSynchronize),
    IS(cuStreamWaitEvent),
    IS(cuEventCreate), AS(cuEventDestroy, cuEventDestroy_v2), IS(cuEventRecord), IS(cuEventSynchronize),
    IS(cuModuleLoadDataEx), IS(cuModuleGetFunction), IS(cuFuncLoad), IS(cuFuncSetAttribute), IS(cuLaunchKernel),
    AS(cuStreamBeginCapture, cuStreamBeginCapture_v2), IS(cuStreamEndCapture), IS(cuThreadExchangeStreamCaptureMode),
    IS(cuGraphGetNodes), IS(cuGraphInstantiateWithFlags), IS(cuGraphDestroy), IS(cuGraphExecDestroy),
    IS(cuGraphLaunch),
};

status cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *result)
{
    (void)version;
    (void)flags;
    *found = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(name, table[i].name)) *found = table[i].function;
    if (result) *result = *found == NULL;
    return *found ? 0 : 500;
}
