"""Status codes of kernels, and the sentence each of them stands for."""

OK = 0
INDEX = 1
SINGULAR = 2
NOT_POSITIVE_DEFINITE = 3
RAISED = 100  # the compiled function raised an exception, which only user code can

SENTENCES = {
    INDEX: "an index lies outside its axis; check the indices against the shape",
    SINGULAR: "the matrix is singular; add a small multiple of the identity, or use another method",
    NOT_POSITIVE_DEFINITE: "the matrix is not positive definite; symmetrise it or add a small multiple of the identity",
    RAISED: "the function raised an exception on these values; call it in Python, with .fn, to see which",
}
