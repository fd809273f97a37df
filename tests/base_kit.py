"""A tiny language model of one of two families, from random weights: the first words of SmolLM2-135M, two blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from edge.assistant.model import find_model

BLOCKS, WIDTH, INNER, HEADS, KV_HEADS, WORDS = 2, 64, 96, 4, 2, 2048
HEAD = WIDTH // HEADS
ROTATED = {"attn_q": HEADS, "attn_k": KV_HEADS}
"""Layers that the rotary embedding turns → heads."""
SIZES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KV_HEADS * HEAD, WIDTH),
    "attn_v": (KV_HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (INNER, WIDTH),
    "ffn_up": (INNER, WIDTH),
    "ffn_down": (WIDTH, INNER),
}
"""Linear layer → outputs, inputs."""

Tensors = dict[str, NDArray[np.float32]]


def weights(seed: int = 1) -> Tensors:
    """Return a model as the world publishes it (transformers): the two halves of each head are turned together."""
    rng = np.random.default_rng(seed)
    found: Tensors = {
        "token_embd.weight": rng.normal(0, 0.1, (WORDS, WIDTH)).astype(np.float32),
        "output_norm.weight": np.ones(WIDTH, np.float32),
    }
    for n in range(BLOCKS):
        for norm in ("attn_norm", "ffn_norm"):
            found[f"blk.{n}.{norm}.weight"] = np.ones(WIDTH, np.float32)
        for name, (outputs, inputs) in SIZES.items():
            found[f"blk.{n}.{name}.weight"] = rng.normal(0, 2 * inputs**-0.5, (outputs, inputs)).astype(np.float32)
    return found


def lora(seed: int = 2, rank: int = 4) -> Tensors:
    """Return a LoRA on every linear layer, in the same layout."""
    rng = np.random.default_rng(seed)
    found: Tensors = {}
    for n in range(BLOCKS):
        for name, (outputs, inputs) in SIZES.items():
            found[f"blk.{n}.{name}.weight.lora_a"] = rng.normal(0, inputs**-0.5, (rank, inputs)).astype(np.float32)
            found[f"blk.{n}.{name}.weight.lora_b"] = rng.normal(0, 1.0, (outputs, rank)).astype(np.float32)
    return found


def interleaved(tensors: Mapping[str, NDArray[np.float32]]) -> Tensors:
    """Return tensors as GGUF files of architecture `llama` hold them: rows of q and k pairwise, lora_b like weights."""
    found = dict(tensors)
    for key, tensor in tensors.items():
        parts = key.split(".")
        if parts[0] == "blk" and parts[2] in ROTATED and not key.endswith("lora_a"):
            heads = tensor.reshape(ROTATED[parts[2]], 2, HEAD // 2, -1)
            found[key] = np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(tensor.shape)
    return found


def write_base(path: Path, architecture: str, tensors: Mapping[str, NDArray[np.float32]], bias: float = 0.0) -> Path:
    """Write a model file of an architecture, all float32; `bias` is that of q, k and v (qwen2 has one)."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "llama":
        writer.add_rope_dimension_count(HEAD)
    for name, (value, kind, sub_kind) in _tokenizer().items():
        writer.add_key_value(name, value, kind, sub_kind)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    if architecture == "qwen2":
        rng = np.random.default_rng(3)
        for n in range(BLOCKS):
            for name in ("attn_q", "attn_k", "attn_v"):
                writer.add_tensor(f"blk.{n}.{name}.bias", rng.normal(0, bias, SIZES[name][0]).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@cache
def _tokenizer() -> dict[str, tuple[Any, Any, Any]]:
    """Return the tokenizer of SmolLM2 with its first `WORDS`: each of them is made of those before it."""
    found = {}
    for field in gguf.GGUFReader(find_model()).fields.values():
        if field.name.startswith("tokenizer.ggml."):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            found[field.name] = (field.contents(), field.types[0], field.types[-1] if is_array else None)
    known = set(found["tokenizer.ggml.tokens"][0][:WORDS])
    for name, (value, *kinds) in found.items():
        if name == "tokenizer.ggml.merges":
            found[name] = ([merge for merge in value if merge.replace(" ", "") in known], *kinds)
        elif isinstance(value, list):
            found[name] = (value[:WORDS], *kinds)
    return found
