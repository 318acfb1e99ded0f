# Writes a Hugging Face folder of vqlm's as a GGUF file: `vqlm convert --to gguf` runs this behind gguf_vocabulary.py, with
#   tokenizer FOLDER yes|no             refuses a tokenizer that has no place in GGUF, before anything large is written
#   model FOLDER OUT DTYPE yes|no       DTYPE f32, f16 or q8_0; no: without the tokenizer
# Notes for the user go to standard output, a line each; the last line of standard error says what went wrong.
import math
import sys

try:
    import gguf
    import numpy
except ImportError as absent:
    sys.exit(f"a GGUF file is written by Python's gguf, and {sys.executable} has no {absent.name}: pip install gguf, or name another "
             "Python by VQLM_PYTHON")

NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
IN_BLOCK = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}
LARGEST_F16 = 65504
Q8_0_BLOCK = 32


def gguf_name(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{IN_BLOCK[rest.removesuffix('.weight')]}.weight"


def stored_tensors(folder):
    """name: (file, where its bytes begin, shape) of float32 safetensors, in the order of the files."""
    index = folder / "model.safetensors.index.json"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    tensors = {}
    for name in files:
        with open(folder / name, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            for tensor, entry in json.loads(file.read(length)).items():
                if tensor != "__metadata__":
                    tensors[tensor] = (folder / name, 8 + length + entry["data_offsets"][0], entry["shape"])
    return tensors


def rotary_pairs_together(matrix, heads):
    """Llama turns element i of a head with i + half; llama.cpp's "llama" turns 2 i with 2 i + 1."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


class Model:
    def __init__(self, folder, dtype):
        self.folder, self.dtype = pathlib.Path(folder), dtype
        self.config = read_json(self.folder / "config.json")
        self.stored = stored_tensors(self.folder)

    def type_of(self, shape):
        """Gains stay in f32, as llama.cpp's own converter leaves them; a row that q8_0's blocks do not fill is f16."""
        if len(shape) == 1 or self.dtype == "f32":
            return gguf.GGMLQuantizationType.F32
        if self.dtype == "q8_0" and shape[-1] % Q8_0_BLOCK == 0:
            return gguf.GGMLQuantizationType.Q8_0
        return gguf.GGMLQuantizationType.F16

    def value(self, name):
        file, begin, shape = self.stored[name]
        values = numpy.memmap(file, dtype="<f4", mode="r", offset=begin, shape=tuple(shape))
        for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if projection in name:
                values = rotary_pairs_together(values, self.config[heads])
        kind = self.type_of(shape)
        if kind == gguf.GGMLQuantizationType.F16 and numpy.abs(values).max(initial=0) > LARGEST_F16:
            raise Refused(f"tensor {name}: values beyond {LARGEST_F16}, the largest of f16; choose --dtype f32")
        return gguf.quants.quantize(numpy.ascontiguousarray(values), kind)

    def rope_factors(self):
        """llama3's scaling, which llama.cpp reads as a divisor of each frequency."""
        scaling = self.config["rope_scaling"]
        if not scaling or scaling["rope_type"] != "llama3":
            return None
        width = self.config["head_dim"]
        low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
        original = scaling["original_max_position_embeddings"]
        factors = []
        for pair in range(width // 2):
            length = 2 * math.pi * self.config["rope_theta"] ** (2 * pair / width)
            smooth = min(1.0, max(0.0, (original / length - low) / (high - low)))
            factors.append(1 / ((1 - smooth) / factor + smooth))
        return numpy.array(factors, dtype=numpy.float32)

    def describe(self, writer):
        config = self.config
        writer.add_vocab_size(config["vocab_size"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_rope_freq_base(config["rope_theta"])
        if config["rope_scaling"] and config["rope_scaling"]["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
        kinds = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
        writer.add_file_type(kinds[self.dtype])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def write_tensors(self, writer):
        """One at a time: the largest is what is in memory."""
        factors = self.rope_factors()
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        in_f16 = []
        for name, (_, _, shape) in self.stored.items():
            kind = self.type_of(shape)
            rows = math.prod(shape[:-1])
            bytes_of_row = gguf.quant_shape_to_byte_shape((shape[-1],), kind)[0]
            writer.add_tensor_info(gguf_name(name), (*shape[:-1], bytes_of_row), numpy.dtype(numpy.uint8), rows * bytes_of_row, raw_dtype=kind)
            if self.dtype == "q8_0" and kind == gguf.GGMLQuantizationType.F16:
                in_f16.append(name)
        if in_f16:
            print(f"q8_0: {len(in_f16)} matrices are f16, as their rows are no multiple of {Q8_0_BLOCK}: {in_f16[0]} and others like it"
                  if len(in_f16) > 1 else f"q8_0: {in_f16[0]} is f16, as its rows are no multiple of {Q8_0_BLOCK}")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name in self.stored:
            writer.write_tensor_data(self.value(name))


def describe_tokenizer(writer, vocabulary, config):
    size = config["vocab_size"]
    if len(vocabulary.tokens) > size:
        raise Refused(f"the tokenizer has {len(vocabulary.tokens)} tokens and the model's matrices {size} rows{WITHOUT}")
    if len(vocabulary.tokens) < size:
        vocabulary.put(size - 1, b"[PAD%d]" % (size - 1), UNUSED)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.merges is None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    else:
        writer.add_token_merges(vocabulary.merges)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "t5":
        writer.add_remove_extra_whitespaces(vocabulary.extra_whitespaces_removed)
        if vocabulary.charsmap:
            writer.add_precompiled_charsmap(vocabulary.charsmap)
    ids = {"bos": config.get("bos_token_id"), "eos": config.get("eos_token_id"), **vocabulary.special}
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id), ("unk", writer.add_unk_token_id),
                      ("pad", writer.add_pad_token_id)):
        if ids.get(name) is not None and ids[name] >= 0:
            add(ids[name])
    writer.add_add_bos_token(vocabulary.adds["bos"] and ids["bos"] is not None)
    writer.add_add_eos_token(vocabulary.adds["eos"] and ids["eos"] is not None)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
    for note in vocabulary.notes:
        print(note)


def write_model(folder, out, dtype, tokenizer):
    model = Model(folder, dtype)
    writer = gguf.GGUFWriter(out, "llama")
    model.describe(writer)
    if tokenizer == "yes":
        describe_tokenizer(writer, read_vocabulary(folder), model.config)
    else:
        writer.add_tokenizer_model("no_vocab")
    model.write_tensors(writer)
    writer.close()


def main(what, *arguments):
    try:
        if what == "model":
            write_model(*arguments)
        elif arguments[-1] == "yes":
            read_vocabulary(arguments[0])
    except Refused as refused:
        sys.exit(str(refused))
    except OSError as error:
        sys.exit(f"cannot be written: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
