"""The base language model in torch, read from its GGUF file, with a LoRA on every linear layer.

Weights keep the layout of the GGUF file (for architecture `llama` that is q and k with the rows of each head
interleaved, as llama.cpp's rotary embedding wants them), so that what is learnt here is written back as it is.
Supported are `llama` (SmolLM2) and `qwen2`: grouped-query attention, RMS norm, SwiGLU, optional biases on q, k, v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge.errors import BadInputError

ARCHITECTURES = ("llama", "qwen2")
TARGETS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""Linear layers of a block, by their GGUF names; all of them carry the LoRA."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the GGUF file says about the architecture."""

    architecture: str
    blocks: int
    width: int
    heads: int
    kv_heads: int
    rope_base: float
    epsilon: float

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class Base:
    """A language model as stored: float32 arrays by GGUF tensor name."""

    config: Config
    tensors: dict[str, NDArray[np.float32]]


def read_base(path: Path) -> Base:
    """Dequantise a GGUF file.

    Raises:
        BadInputError: it is no GGUF file, or of an architecture that cannot be trained here.
    """
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot read the language model {path}: {error}") from None

    def value(key: str) -> Any:
        field = reader.get_field(key)
        if field is None:
            raise BadInputError(f"{path} lacks {key}")
        return field.contents()

    name = str(value("general.architecture"))
    if name not in ARCHITECTURES:
        raise BadInputError(f"{path} is of architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    config = Config(
        architecture=name,
        blocks=int(value(f"{name}.block_count")),
        width=int(value(f"{name}.embedding_length")),
        heads=int(value(f"{name}.attention.head_count")),
        kv_heads=int(value(f"{name}.attention.head_count_kv")),
        rope_base=float(value(f"{name}.rope.freq_base")),
        epsilon=float(value(f"{name}.attention.layer_norm_rms_epsilon")),
    )
    tensors = {
        t.name: gguf.quants.dequantize(np.array(t.data), t.tensor_type).astype(np.float32) for t in reader.tensors
    }
    return Base(config, tensors)


class Linears(nn.Module):
    """Frozen linear layers of one input, side by side, each with a LoRA: one product for all of them."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weights: list[NDArray[np.float32]], biases: list[NDArray[np.float32]], rank: int):
        super().__init__()
        self.sizes = [weight.shape[0] for weight in weights]
        self.register_buffer("weight", torch.from_numpy(np.concatenate(weights)), persistent=False)
        self.register_buffer("bias", torch.from_numpy(np.concatenate(biases)) if biases else None, persistent=False)
        inputs = weights[0].shape[1]
        self.a = nn.ParameterList(nn.Parameter(torch.randn(rank, inputs) / inputs**0.5) for _ in weights if rank)
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(size, rank)) for size in self.sizes if rank)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.linear(x, self.weight, self.bias)
        if not len(self.a):
            return out
        low = functional.linear(x, torch.cat(list(self.a)).to(x.dtype))
        parts = low.chunk(len(self.sizes), dim=-1)
        return out + torch.cat([functional.linear(z, b.to(x.dtype)) for z, b in zip(parts, self.b, strict=True)], -1)


class Block(nn.Module):
    """Attention and SwiGLU with their norms."""

    attn_norm: Tensor
    ffn_norm: Tensor

    def __init__(self, base: Base, n: int, rank: int):
        super().__init__()
        self.config = base.config

        def linears(*names: str) -> Linears:
            biases = [base.tensors[key] for name in names if (key := f"blk.{n}.{name}.bias") in base.tensors]
            return Linears([base.tensors[f"blk.{n}.{name}.weight"] for name in names], biases, rank)

        self.qkv = linears("attn_q", "attn_k", "attn_v")
        self.out = linears("attn_output")
        self.up = linears("ffn_gate", "ffn_up")
        self.down = linears("ffn_down")
        for name in ("attn_norm", "ffn_norm"):
            weight = torch.from_numpy(base.tensors[f"blk.{n}.{name}.weight"])
            self.register_buffer(name, weight, persistent=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        c = self.config
        batch, time, _ = x.shape
        h = self.qkv(functional.rms_norm(x, (c.width,), self.attn_norm, c.epsilon))
        q, k, v = h.split((c.width, c.kv_heads * c.head_width, c.kv_heads * c.head_width), dim=-1)
        q, k, v = (y.view(batch, time, -1, c.head_width).transpose(1, 2) for y in (q, k, v))
        q, k = self._rotate(q, turn), self._rotate(k, turn)
        repeat = c.heads // c.kv_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        h = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(h.transpose(1, 2).reshape(batch, time, c.width))
        h = self.up(functional.rms_norm(x, (c.width,), self.ffn_norm, c.epsilon))
        gate, up = h.chunk(2, dim=-1)
        out: Tensor = x + self.down(functional.silu(gate) * up)
        return out

    def _rotate(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = turn
        if self.config.architecture == "llama":  # pairs of neighbours
            even, odd = x[..., 0::2], x[..., 1::2]
            return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class Language(nn.Module):
    """The base, frozen, in `dtype`, with LoRA parameters in float32; rank 0 is the base alone."""

    embedding: Tensor
    head: Tensor | None
    norm: Tensor

    def __init__(self, base: Base, rank: int = 16, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.config = base.config
        self.rank = rank
        self.blocks = nn.ModuleList(Block(base, n, rank) for n in range(base.config.blocks))
        self.register_buffer("embedding", torch.from_numpy(base.tensors["token_embd.weight"]), persistent=False)
        head = base.tensors.get("output.weight")
        self.register_buffer("head", None if head is None else torch.from_numpy(head), persistent=False)
        self.register_buffer("norm", torch.from_numpy(base.tensors["output_norm.weight"]), persistent=False)
        for module in self.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, buffer.to(dtype))

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embedding rows of token ids."""
        return functional.embedding(tokens, self.embedding)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """Return the normalised last hidden states.

        Args:
            x: [batch, time, width] embeddings.
            position: int [batch, time].
            mask: bool [batch, 1, time, time], True where the row's token may look at the column's.
        """
        half = torch.arange(0, self.config.head_width, 2, dtype=torch.float32) / self.config.head_width
        angle = position[:, None, :, None].to(torch.float32) / self.config.rope_base**half
        turn = (angle.cos().to(x.dtype), angle.sin().to(x.dtype))
        bias = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, float("-inf"))
        for block in self.blocks:
            x = block(x, turn, bias)
        return functional.rms_norm(x, (self.config.width,), self.norm, self.config.epsilon)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states."""
        return functional.linear(hidden, self.embedding if self.head is None else self.head)

    def adapter(self) -> dict[str, NDArray[np.float32]]:
        """Return the LoRA by GGUF tensor name: `blk.N.attn_q.weight.lora_a` [rank, in], `.lora_b` [out, rank]."""
        found = {}
        for n, block in enumerate(self.blocks):
            for name, (a, b) in _named(block).items():
                found[f"blk.{n}.{name}.weight.lora_a"] = a.detach().numpy()
                found[f"blk.{n}.{name}.weight.lora_b"] = b.detach().numpy()
        return found

    def load_adapter(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over a LoRA that `adapter` gave."""
        with torch.no_grad():
            for n, block in enumerate(self.blocks):
                for name, (a, b) in _named(block).items():
                    a.copy_(torch.from_numpy(tensors[f"blk.{n}.{name}.weight.lora_a"]))
                    b.copy_(torch.from_numpy(tensors[f"blk.{n}.{name}.weight.lora_b"]))


def _named(block: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    groups = {"qkv": TARGETS[:3], "out": TARGETS[3:4], "up": TARGETS[4:6], "down": TARGETS[6:]}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for group, names in groups.items():
        linears = getattr(block, group)
        found |= {name: (a, b) for name, a, b in zip(names, linears.a, linears.b, strict=True)}
    return found
