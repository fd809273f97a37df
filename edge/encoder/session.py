"""The encoder as loaded: heavy, shared, without state, safe to call from several threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.card import Card
from edge.encoder.contract import MODEL_FS_HZ, OUTPUTS
from edge.encoder.provider import Choice, choose_provider, cpu_after_failure, gpu_is_there
from edge.errors import AnyecgError


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network says about a batch of windows; shapes as in `edge.encoder.contract`, float32."""

    r_peak: NDArray[np.float32]
    beat: NDArray[np.float32]
    morphology: NDArray[np.float32]
    rhythm: NDArray[np.float32]
    quality: NDArray[np.float32]
    delineation: NDArray[np.float32]
    tokens: NDArray[np.float32]


class Encoder:
    """One ONNX session with its card.

    Calls from different threads run side by side, each on its caller's thread when `threads` is 1.
    On the CPU a window gives the same bits in any batch, whatever the neighbours.
    """

    def __init__(
        self, card: Card, *, provider: str = "auto", threads: int = 1, engine_cache: Path | None = None
    ) -> None:
        """Load the verified weights.

        provider  see `edge.encoder.provider.REQUESTS`
        threads   of one call on the CPU; part of what makes results repeatable, so fixed, never "all cores"
        engine_cache  folder where TensorRT keeps what it compiled; made when it is asked for
        """
        onnxruntime = _onnxruntime()
        self.card = card
        weights = card.verified_weights()
        if engine_cache is not None and provider == "tensorrt":
            engine_cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        choice = choose_provider(
            provider,
            onnxruntime.get_available_providers(),
            has_gpu=gpu_is_there(),
            engine_cache=None if engine_cache is None else str(engine_cache),
        )
        self._session, self.choice = _open(onnxruntime, weights, choice, threads)
        names = {output.name for output in self._session.get_outputs()}
        if missing := [name for name in OUTPUTS if name not in names]:
            raise AnyecgError(f"weights {card.weights} lack the outputs {', '.join(missing)}: they are not an encoder")
        self.runtime = f"onnxruntime {onnxruntime.__version__}"

    def run(self, ecg: NDArray[np.float32]) -> Outputs:
        """Score windows: [batch, lead, time] in mV at 128 Hz, NaN = missing, time a multiple of 128."""
        if ecg.ndim != 3 or ecg.dtype != np.float32 or ecg.shape[2] % MODEL_FS_HZ:
            raise ValueError(f"ecg must be float32 [batch, lead, multiple of 128], got {ecg.dtype} {ecg.shape}")
        return Outputs(*self._session.run(OUTPUTS, {"ecg": np.ascontiguousarray(ecg)}))


def available_providers() -> list[str]:
    """Return what this build of ONNX Runtime could load."""
    return list(_onnxruntime().get_available_providers())


def open_small(weights: bytes) -> Any:
    """Return a session of a small network on one thread of the CPU."""
    return _open(_onnxruntime(), weights, choose_provider("cpu", [], has_gpu=False), 1)[0]


def _open(onnxruntime: ModuleType, weights: bytes, choice: Choice, threads: int) -> tuple[Any, Choice]:
    """Create the session, on the CPU if the chosen provider raises or silently stays away."""
    os.environ.update(choice.environment)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Batches come in many shapes; a plan of memory for each would only be kept, not reused.
    options.enable_mem_pattern = False
    # Idle worker threads would burn a core between windows.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if choice.name == "cpu":
        return onnxruntime.InferenceSession(weights, options, providers=choice.for_onnxruntime()), choice
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=choice.for_onnxruntime())
    except Exception as error:
        # Providers fail with whatever their libraries raise; every such failure means "use the CPU".
        choice = cpu_after_failure(choice, str(error))
    else:
        if session.get_providers()[0] == choice.providers[0]:
            return session, choice
        choice = cpu_after_failure(choice, "ONNX Runtime could not load its libraries")
    return onnxruntime.InferenceSession(weights, options, providers=choice.for_onnxruntime()), choice


def _onnxruntime() -> ModuleType:
    # Its official builds report to Microsoft unless told not to before the import; nothing leaves the home.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise AnyecgError(
            "the encoder needs ONNX Runtime: install anyecg-edge[cpu], or anyecg-edge[gpu] with an NVIDIA GPU"
        ) from None
    return onnxruntime  # type: ignore[no-any-return]
