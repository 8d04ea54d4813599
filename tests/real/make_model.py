"""Make a small Llama model with random weights that vLLM can serve, from nothing but local text.

Runs inside the engines' environment (torch, safetensors, tokenizers): `make_model.py tiny DIR`.
The same name always gives the same model, so that two engines answer alike. `tiny` takes 1-2 ms a
token; `mid` 12-15 ms, slow enough for a test to act in the middle of a stream.
"""

import json
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch  # type: ignore[import-not-found]  # lives in the engines' environment only
from safetensors.torch import save_file  # type: ignore[import-not-found]
from tokenizers import (  # type: ignore[import-not-found]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

VOCABULARY = 4096
CONTEXT_TOKENS = 8192
HEAD_SIZE = 64  # the CPU attention kernel takes 64 or 128
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The sizes that decide how long a token takes."""

    layers: int
    heads: int
    kv_heads: int

    @property
    def hidden(self) -> int:
        return self.heads * HEAD_SIZE


SHAPES = {
    "tiny": Shape(layers=2, heads=4, kv_heads=2),  # 3 M parameters
    "mid": Shape(layers=8, heads=16, kv_heads=4),  # 80 M parameters
}


def write_tokenizer(out: Path) -> None:
    """Byte-level BPE over the standard library's sources: always there with Python."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:120]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train([str(path) for path in sources], trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_TOKENS,
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings))


def write_config(out: Path, shape: Shape) -> None:
    """The architecture, and the token ids that end a text (positions in SPECIAL)."""
    special_ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.hidden * 2,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **special_ids,
    }
    (out / "config.json").write_text(json.dumps(config))
    (out / "generation_config.json").write_text(json.dumps(special_ids))


def write_weights(out: Path, shape: Shape) -> None:
    """Random matrices from a fixed seed, and norms of one."""
    dice = torch.Generator().manual_seed(0)
    hidden, inner, kv = shape.hidden, shape.hidden * 2, shape.kv_heads * HEAD_SIZE
    matrices = {"model.embed_tokens": (VOCABULARY, hidden), "lm_head": (VOCABULARY, hidden)}
    norms = ["model.norm"]
    for layer in (f"model.layers.{i}" for i in range(shape.layers)):
        matrices |= {
            f"{layer}.self_attn.q_proj": (hidden, hidden),
            f"{layer}.self_attn.k_proj": (kv, hidden),
            f"{layer}.self_attn.v_proj": (kv, hidden),
            f"{layer}.self_attn.o_proj": (hidden, hidden),
            f"{layer}.mlp.gate_proj": (inner, hidden),
            f"{layer}.mlp.up_proj": (inner, hidden),
            f"{layer}.mlp.down_proj": (hidden, inner),
        }
        norms += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"]
    weights = {
        f"{name}.weight": (torch.randn(*size, generator=dice) * 0.05).to(torch.bfloat16)
        for name, size in matrices.items()
    }
    weights |= {f"{name}.weight": torch.ones(hidden, dtype=torch.bfloat16) for name in norms}
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})


def main() -> None:
    name, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True)
    write_tokenizer(out)
    write_config(out, SHAPES[name])
    write_weights(out, SHAPES[name])


if __name__ == "__main__":
    main()
