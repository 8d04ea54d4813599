"""Make a small Llama model with random weights that vLLM can serve, from nothing but local text.

Runs inside the engines' environment (torch, safetensors, tokenizers): `make_model.py DIR`. Each run
gives the same model, so that two engines answer alike. With 80 M parameters it takes 12-15 ms a
token, slow enough for a test to act in the middle of a stream.
"""

import json
import sys
import sysconfig
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
LAYERS, HEADS, KV_HEADS = 8, 16, 4
HEAD_SIZE = 64  # the CPU attention kernel takes 64 or 128
HIDDEN, INNER, KV = HEADS * HEAD_SIZE, HEADS * HEAD_SIZE * 2, KV_HEADS * HEAD_SIZE
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


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


def write_config(out: Path) -> None:
    """The architecture, and the token ids that end a text (positions in SPECIAL)."""
    special_ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
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


def write_weights(out: Path) -> None:
    """Random matrices from a fixed seed, and norms of one."""
    dice = torch.Generator().manual_seed(0)
    matrices = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN)}
    norms = ["model.norm"]
    for layer in (f"model.layers.{i}" for i in range(LAYERS)):
        matrices |= {
            f"{layer}.self_attn.q_proj": (HIDDEN, HIDDEN),
            f"{layer}.self_attn.k_proj": (KV, HIDDEN),
            f"{layer}.self_attn.v_proj": (KV, HIDDEN),
            f"{layer}.self_attn.o_proj": (HIDDEN, HIDDEN),
            f"{layer}.mlp.gate_proj": (INNER, HIDDEN),
            f"{layer}.mlp.up_proj": (INNER, HIDDEN),
            f"{layer}.mlp.down_proj": (HIDDEN, INNER),
        }
        norms += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"]
    weights = {
        f"{name}.weight": (torch.randn(*size, generator=dice) * 0.05).to(torch.bfloat16)
        for name, size in matrices.items()
    }
    weights |= {f"{name}.weight": torch.ones(HIDDEN, dtype=torch.bfloat16) for name in norms}
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    write_tokenizer(out)
    write_config(out)
    write_weights(out)


if __name__ == "__main__":
    main()
