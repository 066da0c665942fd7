"""Status codes of kernels, and the sentence each of them stands for."""

OK = 0
INDEX = 1
SINGULAR = 2
NOT_POSITIVE_DEFINITE = 3

SENTENCES = {
    INDEX: "an index lies outside its axis; check the indices against the shape",
    SINGULAR: "the matrix is singular; add a small multiple of the identity, or use another method",
    NOT_POSITIVE_DEFINITE: "the matrix is not positive definite; symmetrise it or add a small multiple of the identity",
}
