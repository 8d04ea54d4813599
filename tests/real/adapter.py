"""A LoRA adapter for the small model, written on the spot: random, so that its words are others.

The same bytes each time. Its file is written here by hand (safetensors: the length of a header, the
header, the numbers), so that no torch has to be loaded for it.
"""

import json
import random
from array import array
from pathlib import Path

ADAPTER = "real-sql"
RANK = 8
_PREFIX = "base_model.model.model.layers"
_SCALE = 0.5  # enough to change what the model says


def write_adapter(out: Path, model: Path) -> Path:
    """Make it for the model of this folder; its own folder."""
    config = json.loads((model / "config.json").read_text())
    hidden, head = config["hidden_size"], config["head_dim"]
    wide = {"q_proj": config["num_attention_heads"], "v_proj": config["num_key_value_heads"]}
    shapes = {}
    for layer in range(config["num_hidden_layers"]):
        for name, heads in wide.items():
            at = f"{_PREFIX}.{layer}.self_attn.{name}"
            shapes[f"{at}.lora_A.weight"] = (RANK, hidden)
            shapes[f"{at}.lora_B.weight"] = (heads * head, RANK)
    out.mkdir()
    (out / "adapter_model.safetensors").write_bytes(_safetensors(shapes))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "r": RANK}
    settings |= {"lora_alpha": RANK, "target_modules": sorted(wide), "lora_dropout": 0.0}
    (out / "adapter_config.json").write_text(json.dumps(settings))
    return out


def _safetensors(shapes: dict[str, tuple[int, int]]) -> bytes:
    dice = random.Random(0)
    few = [dice.gauss(0, _SCALE) for _ in range(1009)]  # a prime: rows differ
    header, numbers = {}, array("f")
    for name, (rows, columns) in shapes.items():
        start, count = len(numbers), rows * columns
        numbers.extend(few[number % len(few)] for number in range(start, start + count))
        place = [4 * start, 4 * (start + count)]
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": place}
    said = json.dumps(header).encode()
    return len(said).to_bytes(8, "little") + said + numbers.tobytes()
