"""Losses as modules: one row of a table each. The functions of the same names, in `functional`, say what they compute."""

from __future__ import annotations

from . import functional as F
from .activations import module_of
from .module import Module


def _loss(
    name: str, fn, tensors: tuple[str, ...] = ("input", "target"), held: tuple[str, ...] = (), **defaults
) -> type[Module]:
    doc = f"`functional.{fn.__name__}` as a module.\n\n{fn.__doc__}"
    return module_of(name, fn, doc, tensors, held, __name__, **defaults)


CrossEntropyLoss = _loss(
    "CrossEntropyLoss",
    F.cross_entropy,
    held=("weight",),
    weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
)
NLLLoss = _loss("NLLLoss", F.nll_loss, held=("weight",), weight=None, ignore_index=-100, reduction="mean")
MSELoss = _loss("MSELoss", F.mse_loss, reduction="mean")
L1Loss = _loss("L1Loss", F.l1_loss, reduction="mean")
SmoothL1Loss = _loss("SmoothL1Loss", F.smooth_l1_loss, reduction="mean", beta=1.0)
HuberLoss = _loss("HuberLoss", F.huber_loss, reduction="mean", delta=1.0)
BCELoss = _loss("BCELoss", F.binary_cross_entropy, held=("weight",), weight=None, reduction="mean")
BCEWithLogitsLoss = _loss(
    "BCEWithLogitsLoss",
    F.binary_cross_entropy_with_logits,
    held=("weight", "pos_weight"),
    weight=None,
    reduction="mean",
    pos_weight=None,
)
KLDivLoss = _loss("KLDivLoss", F.kl_div, reduction="mean", log_target=False)
HingeEmbeddingLoss = _loss("HingeEmbeddingLoss", F.hinge_embedding_loss, margin=1.0, reduction="mean")
MultiMarginLoss = _loss("MultiMarginLoss", F.multi_margin_loss, p=1, margin=1.0, reduction="mean")
CosineEmbeddingLoss = _loss(
    "CosineEmbeddingLoss", F.cosine_embedding_loss, ("input1", "input2", "target"), margin=0.0, reduction="mean"
)
MarginRankingLoss = _loss(
    "MarginRankingLoss", F.margin_ranking_loss, ("input1", "input2", "target"), margin=0.0, reduction="mean"
)
TripletMarginLoss = _loss(
    "TripletMarginLoss",
    F.triplet_margin_loss,
    ("anchor", "positive", "negative"),
    margin=1.0,
    p=2.0,
    eps=1e-6,
    swap=False,
    reduction="mean",
)
