"""Other language models as a base: llama and qwen2, in torch as in llama.cpp, with a LoRA on every layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import torch
from base_kit import SIZES, interleaved, lora, weights, write_base
from look_kit import divergence, sha256
from numpy.typing import NDArray

from edge.assistant.injection import Injection
from edge.assistant.merge import merged
from edge.assistant.soft import ProjectorCard
from edge.errors import BadInputError
from export.assistant.language import Language, read_base
from export.gguf import write_adapter

pytestmark = pytest.mark.export
TEXT = "Where is the premature beat in this ECG? It is at 3.4"
ARCHITECTURES = ("llama", "qwen2")


def said(path: Path, adapter: Path | None = None) -> NDArray[np.float32]:
    """Return the logits of llama.cpp after a text; the adapter applied at run time."""
    given = None if adapter is None else str(adapter)
    llama = llama_cpp.Llama(str(path), lora_path=given, n_ctx=64, n_threads=1, verbose=False)
    injection = Injection(llama, llama_cpp)
    injection.read(["ECG:"])
    logits = injection.logits(TEXT)
    llama.close()
    return logits


def in_torch(language: Language, path: Path) -> NDArray[np.float32]:
    """Return the logits of torch after the same text."""
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    tokens = [t for part in ("ECG:", TEXT) for t in llama.tokenize(part.encode(), add_bos=False, special=False)]
    llama.close()
    with torch.no_grad():
        x = language.embed(torch.tensor(tokens))[None]
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()[None, None]
        hidden = language(x, torch.arange(len(tokens))[None], mask)
        logits: NDArray[np.float32] = language.logits(hidden[0, -1]).numpy()
    return logits


def of(architecture: str) -> Callable[[dict[str, NDArray[np.float32]]], dict[str, NDArray[np.float32]]]:
    return interleaved if architecture == "llama" else dict


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_lora_learnt_on_a_base_of_either_family_is_that_of_llama_cpp(architecture: str, tmp_path: Path) -> None:
    """Base, adapter at run time and merged file say what torch says: read from the file's own configuration."""
    base = write_base(tmp_path / "base.gguf", architecture, of(architecture)(weights()), bias=0.5)
    torch.manual_seed(1)
    language = Language(read_base(base), 4, torch.float32)
    alone, plain = in_torch(language, base), said(base)
    assert divergence(alone, plain) < 1e-4
    with torch.no_grad():
        for name, parameter in language.named_parameters():
            if ".b." in name:
                parameter.normal_(0, 1.0)
    learnt = in_torch(language, base)
    changed = divergence(learnt, alone)
    assert changed > 0.03
    assert len(language.adapter()) == 2 * 2 * len(SIZES)
    adapter = tmp_path / "adapter.gguf"
    write_adapter(language.adapter(), architecture, adapter)
    assert divergence(learnt, said(base, adapter)) < changed / 100
    facts = {
        "checkpoint": "tiny",
        "encoder": "tiny-0",
        "base_sha256": sha256(base),
        "file": "projector.onnx",
        "sha256": "",
        "adapter": adapter.name,
        "adapter_sha256": sha256(adapter),
    }
    whole = merged(base, ProjectorCard(tmp_path / "projector.json", facts), tmp_path / "cache")
    assert divergence(learnt, said(whole)) < changed / 10


def test_rows_of_q_and_k_are_interleaved_for_llama_and_not_for_qwen2(tmp_path: Path) -> None:
    """One model and one LoRA as the world publishes them, stored for either family, say the same."""
    as_qwen2 = write_base(tmp_path / "qwen2.gguf", "qwen2", weights())
    as_llama = write_base(tmp_path / "llama.gguf", "llama", interleaved(weights()))
    assert divergence(said(as_qwen2), said(as_llama)) < 1e-6
    write_adapter(lora(), "qwen2", tmp_path / "qwen2-lora.gguf")
    write_adapter(interleaved(lora()), "llama", tmp_path / "llama-lora.gguf")
    write_adapter(lora(), "llama", tmp_path / "wrong-lora.gguf")
    wanted = said(as_qwen2, tmp_path / "qwen2-lora.gguf")
    assert divergence(wanted, said(as_qwen2)) > 0.03
    assert divergence(wanted, said(as_llama, tmp_path / "llama-lora.gguf")) < 1e-4
    assert divergence(wanted, said(as_llama, tmp_path / "wrong-lora.gguf")) > 1e-3
    for path, tensors in ((as_qwen2, lora()), (as_llama, interleaved(lora()))):
        language = Language(read_base(path), 4, torch.float32)
        language.load_adapter(tensors)
        assert divergence(wanted, in_torch(language, path)) < 1e-4


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    path = write_base(tmp_path / "base.gguf", "gemma", weights())
    with pytest.raises(BadInputError, match="architecture 'gemma'; known are llama, qwen2"):
        read_base(path)
    path.write_bytes(b"not a model")
    with pytest.raises(BadInputError, match="cannot read the language model"):
        read_base(path)
