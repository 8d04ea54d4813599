"""Why an engine died, by words of vLLM 0.32."""

from __future__ import annotations

import pytest

from standalone import causes

KV = (
    "(EngineCore pid=9) ERROR 11-21 22:00:00 [core.py:900] ValueError: To serve at least one"
    " request with the model's max seq len (131072), (9.0 GiB KV cache is needed, which is larger"
    " than the available KV cache memory (1.2 GiB). Try increasing `gpu_memory_utilization`\n"
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.\n"
)
MEMORY = (
    "ValueError: Free memory on device cuda:0 (3.1/139.8 GiB) on startup is less than desired GPU"
    " memory utilization (0.9, 125.8 GiB)."
)


@pytest.mark.parametrize(
    ("words", "code", "text", "lasting"),
    [
        (KV, 1, "no room for one whole context", True),
        (MEMORY, 1, "other programs hold the GPU's memory", False),
        ("vllm: error: unrecognized arguments: --foo", 2, "this vLLM has no such flag", True),
        (
            "vllm: error: unrecognized arguments: --shutdown-timeout 60",
            2,
            "this vLLM is older than 0.18",
            True,
        ),
        (
            "OSError: x is not a local folder and is not a valid model identifier",
            1,
            "no such",
            True,
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", 1, "the GPU's memory is full", False),
        (f"No space left on device\n{MEMORY}", 1, "other programs", False),  # the latest counts
        ("INFO all is well", 137, "SIGKILL from elsewhere", False),
    ],
)
def test_known_causes(words: str, code: int, text: str, lasting: bool) -> None:
    cause = causes.known(words, code)
    assert cause is not None
    assert (cause.text.startswith(text), cause.lasting) == (True, lasting)


def test_what_is_not_known_is_not_guessed() -> None:
    assert causes.known("ValueError: something new", 1) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "no word"),
        ("(EngineCore pid=9) INFO 11-21 22:00:00 [a.py:1] Starting\n\n", "Starting"),
        ("KeyError: 'x'\nINFO 11-21 22:00:00 [a.py:1] bye", "KeyError: 'x'"),
        ("loading: 1%\rloading: 43%", "loading: 43%"),
    ],
)
def test_the_last_words(words: str, said: str) -> None:
    assert causes.said(words) == said


def test_the_last_words_name_the_root_not_its_echo() -> None:
    assert causes.said(KV).startswith("ValueError: To serve at least one request")
