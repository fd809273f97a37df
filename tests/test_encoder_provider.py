"""The whole matrix of provider choice, and what happens when a chosen provider does not load."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from encoder_kit import tiny_card

from edge.encoder.provider import CPU, CUDA, REQUESTS, TENSORRT, Choice, choose_provider, cpu_after_failure
from edge.encoder.session import Encoder
from edge.errors import AnyecgError, BadInputError

CPU_BUILD = ("AzureExecutionProvider", CPU)
CUDA_BUILD = (CUDA, CPU)
FULL_BUILD = (TENSORRT, CUDA, CPU)
TENSORRT_ONLY = (TENSORRT, CPU)

MATRIX = [
    # requested, build, GPU there, providers, a word of the reason
    ("auto", CPU_BUILD, False, (CPU,), "no NVIDIA device"),
    ("auto", CPU_BUILD, True, (CPU,), "anyecg-edge[gpu]"),
    ("auto", CUDA_BUILD, False, (CPU,), "no NVIDIA device"),
    ("auto", CUDA_BUILD, True, (CUDA, CPU), "a GPU"),
    ("auto", FULL_BUILD, False, (CPU,), "no NVIDIA device"),
    ("auto", FULL_BUILD, True, (CUDA, CPU), "a GPU"),
    ("auto", TENSORRT_ONLY, True, (CPU,), "without CUDA"),
    ("cpu", CPU_BUILD, False, (CPU,), "as requested"),
    ("cpu", CPU_BUILD, True, (CPU,), "as requested"),
    ("cpu", FULL_BUILD, True, (CPU,), "as requested"),
    ("cpu", FULL_BUILD, False, (CPU,), "as requested"),
    ("cuda", CPU_BUILD, False, (CPU,), "cuda was requested, but this machine shows no"),
    ("cuda", CPU_BUILD, True, (CPU,), "cuda was requested, but this ONNX Runtime is built without CUDA"),
    ("cuda", CUDA_BUILD, False, (CPU,), "cuda was requested, but this machine shows no"),
    ("cuda", CUDA_BUILD, True, (CUDA, CPU), "as requested"),
    ("cuda", FULL_BUILD, True, (CUDA, CPU), "as requested"),
    ("tensorrt", CPU_BUILD, False, (CPU,), "tensorrt was requested, but this machine shows no"),
    ("tensorrt", CPU_BUILD, True, (CPU,), "tensorrt was requested, but this ONNX Runtime is built without CUDA"),
    ("tensorrt", CUDA_BUILD, False, (CPU,), "tensorrt was requested, but this machine shows no"),
    ("tensorrt", CUDA_BUILD, True, (CUDA, CPU), "no TensorRT provider"),
    ("tensorrt", FULL_BUILD, False, (CPU,), "tensorrt was requested, but this machine shows no"),
    ("tensorrt", FULL_BUILD, True, (TENSORRT, CUDA, CPU), "as requested"),
    ("tensorrt", TENSORRT_ONLY, True, (TENSORRT, CPU), "as requested"),
]


@pytest.mark.parametrize(("requested", "build", "has_gpu", "providers", "reason"), MATRIX)
def test_matrix(requested: str, build: tuple[str, ...], has_gpu: bool, providers: tuple[str, ...], reason: str) -> None:
    choice = choose_provider(requested, build, has_gpu=has_gpu)
    assert choice.providers == providers
    assert reason in choice.reason
    assert choice.reason.lower().startswith(choice.name)
    assert len(choice.options) == len(providers)


def test_tf32_is_off_unless_asked_for() -> None:
    for requested in REQUESTS:
        choice = choose_provider(requested, FULL_BUILD, has_gpu=True)
        assert all(options.get("use_tf32", "0") == "0" for options in choice.options)
        assert choice.environment == ({"NVIDIA_TF32_OVERRIDE": "0"} if requested == "tensorrt" else {})
    allowed = choose_provider("tensorrt", FULL_BUILD, has_gpu=True, tf32=True)
    assert allowed.environment == {}
    assert allowed.options[1]["use_tf32"] == "1"


def test_tensorrt_keeps_its_engines_where_it_is_told() -> None:
    choice = choose_provider("tensorrt", FULL_BUILD, has_gpu=True, engine_cache="/state/engines")
    assert choice.options[0]["trt_engine_cache_path"] == "/state/engines"


def test_unknown_request_lists_the_options() -> None:
    with pytest.raises(BadInputError, match="'rocm' is unknown; choose one of auto, cpu, cuda, tensorrt"):
        choose_provider("rocm", FULL_BUILD, has_gpu=True)


def test_failure_keeps_the_cause() -> None:
    choice = cpu_after_failure(choose_provider("cuda", FULL_BUILD, has_gpu=True), "libcudnn.so.9: missing\nmore")
    assert choice.providers == (CPU,)
    assert choice.reason == "CPU: cuda was chosen but did not load: libcudnn.so.9: missing"


@pytest.mark.parametrize("how", ["raises", "stays away"])
def test_encoder_runs_on_the_cpu_when_the_gpu_provider_does_not_load(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession

    def session(weights: bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
        if providers[0][0] == CUDA:
            if how == "raises":
                raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
            providers = providers[1:]
        return real(weights, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("edge.encoder.session.gpu_is_there", lambda: True)
    encoder = Encoder(tiny_card(tmp_path))
    assert encoder.choice.name == "cpu"
    assert "cuda was chosen but did not load" in encoder.choice.reason


def test_without_onnxruntime_the_message_names_the_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AnyecgError, match=r"install anyecg-edge\[cpu\], or anyecg-edge\[gpu\]"):
        Encoder(tiny_card(tmp_path))


def test_choice_is_a_value() -> None:
    assert choose_provider("cpu", CPU_BUILD, has_gpu=False) == Choice((CPU,), ({},), "CPU, as requested")
