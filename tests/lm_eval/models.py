"""Two small models whose numbers are a formula, so that every machine has the same ones: a dense Llama and a VQ head with members
by the embedding, both with the tokenizer tests/tokenizers/gpt2.json. Standard library alone."""

import json
import pathlib
import shutil
import struct

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
VOCAB, WIDTH, LAYERS, HEADS, KV_HEADS, INNER, CLUSTERS, LENGTH = 560, 32, 2, 4, 2, 64, 16, 64
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": WIDTH // HEADS,
    "max_position_embeddings": LENGTH, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 0}  # <|endoftext|> in gpt2.json
VQ = {"model_type": "vqlm", "architectures": ["VqlmForCausalLM"], "head_kind": "vq", "head_bias": True, "vq_clusters": CLUSTERS,
      "vq_members": "embedding", "vq_member_mean": True}


def numbers(name, count, scale, offset=0.0):
    """Evenly spread in offset +- scale: Knuth's multiplicative hash of the place, begun by the name's letters."""
    state = sum(ord(letter) * 31 ** (place % 5) for place, letter in enumerate(name))
    for place in range(count):
        hashed = (state + place) * 2654435761 & 0xFFFFFFFF
        hashed = (hashed ^ hashed >> 15) * 2246822519 & 0xFFFFFFFF
        yield offset + scale * ((hashed ^ hashed >> 13) / 2**31 - 1)


def shapes(head):
    """name: shape of every tensor in floats."""
    tensors = {"model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        key_width = KV_HEADS * WIDTH // HEADS
        for name, shape in (
                ("input_layernorm", (WIDTH,)), ("post_attention_layernorm", (WIDTH,)), ("self_attn.q_proj", (WIDTH, WIDTH)),
                ("self_attn.k_proj", (key_width, WIDTH)), ("self_attn.v_proj", (key_width, WIDTH)), ("self_attn.o_proj", (WIDTH, WIDTH)),
                ("mlp.gate_proj", (INNER, WIDTH)), ("mlp.up_proj", (INNER, WIDTH)), ("mlp.down_proj", (WIDTH, INNER))):
            tensors[f"model.layers.{layer}.{name}.weight"] = shape
    if head == "dense":
        return {**tensors, "lm_head.weight": (VOCAB, WIDTH)}
    return {**tensors, "lm_head.codebook": (CLUSTERS, WIDTH), "lm_head.cluster_bias": (CLUSTERS,), "lm_head.token_bias": (VOCAB,)}


def write_model(folder, head):
    """A Hugging Face folder that `vqlm convert --from hf` reads; head: "dense" or "vq"."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(VQ if head == "vq" else {})}))
    shutil.copy(SOURCE / "tests/tokenizers/gpt2.json", folder / "tokenizer.json")
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, shape in shapes(head).items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        gain = name.endswith("norm.weight")
        values = struct.pack(f"<{count}f", *numbers(name, count, 0.3, 1.0 if gain else 0.0))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    if head == "vq":
        clusters = struct.pack(f"<{VOCAB}i", *(token * 7 % CLUSTERS for token in range(VOCAB)))
        header["lm_head.cluster_of_token"] = {"dtype": "I32", "shape": [VOCAB], "data_offsets": [len(data), len(data) + len(clusters)]}
        data += clusters
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
