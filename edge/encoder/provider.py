"""Where the encoder runs: a pure choice with its reason, so that the whole fallback matrix is a table in a test."""

from __future__ import annotations

import glob
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from edge.errors import BadInputError

REQUESTS = ("auto", "cpu", "cuda", "tensorrt")
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

GPU_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
"""Device files of discrete NVIDIA cards, Jetsons and WSL2."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask ONNX Runtime for, and why."""

    providers: tuple[str, ...]
    """Most wanted first; the CPU provider is always last."""
    options: tuple[dict[str, str], ...]
    """Provider options, one dictionary per provider."""
    reason: str
    """One sentence for `anyecg status`."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables that must be set before the first session is created."""

    @property
    def name(self) -> str:
        """The provider that is meant to do the work: `cpu`, `cuda` or `tensorrt`."""
        return {CPU: "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}[self.providers[0]]

    def for_onnxruntime(self) -> list[Any]:
        """Return the providers as `InferenceSession` takes them."""
        return list(zip(self.providers, self.options, strict=True))


def choose_provider(
    requested: str, available: Collection[str], *, has_gpu: bool, tf32: bool = False, engine_cache: str | None = None
) -> Choice:
    """Choose execution providers.

    requested    one of `REQUESTS`; `auto` takes CUDA where it can work, TensorRT only runs on request
                 (it compiles for minutes at the first start).
    available    `onnxruntime.get_available_providers()`: what this build could load, not what will load.
    has_gpu      whether the machine shows a GPU device.
    tf32         allow 10-bit mantissas on the GPU; off, so that providers agree within 1e-3.
    engine_cache folder where TensorRT keeps its compiled engines between starts.

    A request that cannot be met falls back and says so in the reason; an unknown one raises `BadInputError`.
    """
    if requested not in REQUESTS:
        raise BadInputError(f"encoder provider {requested!r} is unknown; choose one of {', '.join(REQUESTS)}")
    cpu = (CPU, dict[str, str]())
    cuda = (CUDA, {"use_tf32": "1" if tf32 else "0", "cudnn_conv_algo_search": "HEURISTIC"})
    environment: dict[str, str] = {}

    if requested == "cpu":
        chosen, reason = [cpu], "CPU, as requested"
    elif not has_gpu:
        chosen, reason = [cpu], f"CPU: {_wanted(requested)}this machine shows no NVIDIA device"
    elif requested == "tensorrt" and TENSORRT in available:
        tensorrt = {"trt_fp16_enable": "0"}
        if engine_cache is not None:
            tensorrt |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": engine_cache}
        chosen, reason = [(TENSORRT, tensorrt), cpu], "TensorRT, as requested"
        if CUDA in available:
            chosen.insert(1, cuda)
        if not tf32:
            # ONNX Runtime has no TensorRT option for it (microsoft/onnxruntime issue 26029).
            environment = {"NVIDIA_TF32_OVERRIDE": "0"}
    elif CUDA in available:
        chosen = [cuda, cpu]
        if requested == "tensorrt":
            reason = "CUDA: tensorrt was requested, but this ONNX Runtime has no TensorRT provider"
        else:
            reason = "CUDA, as requested" if requested == "cuda" else "CUDA: a GPU and its ONNX Runtime are there"
    else:
        chosen = [cpu]
        reason = f"CPU: {_wanted(requested)}this ONNX Runtime is built without CUDA (install anyecg-edge[gpu])"
    return Choice(
        providers=tuple(name for name, _ in chosen),
        options=tuple(options for _, options in chosen),
        reason=reason,
        environment=environment,
    )


def cpu_after_failure(failed: Choice, error: str) -> Choice:
    """Return the CPU choice to use when `failed` could not be loaded."""
    first_line = error.strip().splitlines()[0][:200] if error.strip() else "no message"
    return Choice((CPU,), ({},), f"CPU: {failed.name} was chosen but did not load: {first_line}")


def gpu_is_there() -> bool:
    """Whether the machine shows an NVIDIA device file."""
    return any(glob.glob(pattern) for pattern in GPU_DEVICE_FILES)


def _wanted(requested: str) -> str:
    return "" if requested == "auto" else f"{requested} was requested, but "
