"""A Llama in a GGUF file as a Hugging Face folder: values dequantised to float32, the byte-level BPE tokenizer rebuilt."""

import json

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # tokenizer.ggml.token_type


def field(reader, key):
    """The value of a GGUF key: a number, a string, or a list of them."""
    found = reader.fields[key]
    texts = found.types[-1].name == "STRING"
    values = [bytes(found.parts[i]).decode() if texts else found.parts[i][0].item() for i in found.data]
    return values if found.types[0].name == "ARRAY" else values[0]


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def unpermute(weight, heads):
    """Rotary pairs stand side by side in GGUF (2i, 2i + 1), half a head apart in Hugging Face's files (i, i + D/2)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_tensors(reader, heads, kv_heads):
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(extent) for extent in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        name = hf_name(tensor.name)
        if name.endswith("q_proj.weight"):
            values = unpermute(values, heads)
        elif name.endswith("k_proj.weight"):
            values = unpermute(values, kv_heads)
        tensors[name] = torch.from_numpy(np.ascontiguousarray(values))
    return tensors


def config_of(reader, tied):
    def llama(key):
        return field(reader, f"llama.{key}")

    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": llama("vocab_size"), "hidden_size": llama("embedding_length"),
        "intermediate_size": llama("feed_forward_length"), "num_hidden_layers": llama("block_count"),
        "num_attention_heads": llama("attention.head_count"), "num_key_value_heads": llama("attention.head_count_kv"),
        "max_position_embeddings": llama("context_length"), "rope_theta": llama("rope.freq_base"), "rope_scaling": None,
        # A float32 in the file; its shortest decimal is what the model's own config.json says.
        "rms_norm_eps": float(str(np.float32(llama("attention.layer_norm_rms_epsilon")))),
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": tied, "torch_dtype": "float32",
        "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
    }


def tokenizer_of(reader):
    """Byte-level BPE after single digits were cut off, as SmolLM's (tokenizer.ggml.pre = "smollm")."""
    pre = field(reader, "tokenizer.ggml.pre")
    if field(reader, "tokenizer.ggml.model") != "gpt2" or pre != "smollm":
        raise SystemExit(f"tokenizer.ggml.pre = {pre}: only SmolLM's byte-level BPE is known here")
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field(reader, "tokenizer.ggml.token_type")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == CONTROL])
    special = {name: tokens[field(reader, f"tokenizer.ggml.{key}_token_id")]
               for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"))}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def convert(gguf, folder):
    """Writes config.json, model.safetensors and the tokenizer's files; returns the tokenizer."""
    reader = GGUFReader(gguf)
    tensors = read_tensors(reader, field(reader, "llama.attention.head_count"), field(reader, "llama.attention.head_count_kv"))
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(reader, "lm_head.weight" not in tensors), indent=2) + "\n")
    tokenizer = tokenizer_of(reader)
    tokenizer.save_pretrained(folder)
    return tokenizer
