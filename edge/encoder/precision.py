"""Which form of the trained weights runs, fp32 or int8: a pure choice with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import BadInputError

REQUESTS = ("fp32", "int8", "auto")


@dataclass(frozen=True, slots=True)
class Precision:
    """The form to load, and why."""

    name: str
    """`fp32` or `int8`."""
    reason: str


def choose_precision(requested: str, *, provider: str, checkpoint: str, int8_checkpoint: str | None) -> Precision:
    """Choose a form of the weights.

    requested        one of `REQUESTS`; `auto` takes int8 on the CPU where it can
    provider         where the encoder will run (`edge.encoder.provider.Choice.name`)
    checkpoint       identity of the fp32 weights
    int8_checkpoint  identity that the int8 card gives, None if there is none

    Int8 must come from the same trained weights, or findings and embeddings would name the wrong ones. A request that
    cannot be met falls back to fp32 and says so; an unknown one raises `BadInputError`.
    """
    if requested not in REQUESTS:
        raise BadInputError(f"encoder precision {requested!r} is unknown; choose one of {', '.join(REQUESTS)}")
    if requested == "fp32":
        return Precision("fp32", "fp32, as requested")
    wanted = "int8 was requested, but " if requested == "int8" else ""
    if provider != "cpu":
        return Precision("fp32", f"fp32: {wanted}the encoder runs on {provider}, where fp32 is the faster form")
    if int8_checkpoint is None:
        return Precision("fp32", f"fp32: {wanted}no int8 form of these weights is there")
    if int8_checkpoint != checkpoint:
        return Precision("fp32", f"fp32: {wanted}the int8 form is of checkpoint {int8_checkpoint}, not {checkpoint}")
    return Precision("int8", "int8, as requested" if requested == "int8" else "int8: the faster form on the CPU")
