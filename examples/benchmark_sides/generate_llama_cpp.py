"""llama.cpp's side of the benchmark of generation, through llama-cpp-python: a GGUF file of random weights, in F32, or
what its own quantisation makes of it: Q8_0 or Q4_0, which keeps the head at Q6_K."""
import json
import sys
import tempfile
from pathlib import Path

try:
    import gguf
    import llama_cpp
except ImportError:
    sys.exit("error: llama.cpp is not installed: pip install llama-cpp-python gguf")
import numpy as np
from common import answer, timed

FILE_TYPES = {"int8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "int4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


def write_model(path, s):
    """A GPT-2 of this shape as llama.cpp reads it. It has no tokenizer: only token numbers go in and out."""
    C, rng = s["width"], np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(s["context"])
    writer.add_embedding_length(C)
    writer.add_block_count(s["layers"])
    writer.add_feed_forward_length(4 * C)
    writer.add_head_count(s["heads"])
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(s["vocabulary_size"])

    def add(name, *shape):
        writer.add_tensor(name, 0.02 * rng.standard_normal(shape, np.float32))

    add("token_embd.weight", s["vocabulary_size"], C)
    add("position_embd.weight", s["context"], C)
    for norm in ["output_norm", *(f"blk.{i}.{norm}" for i in range(s["layers"]) for norm in ("attn_norm", "ffn_norm"))]:
        add(f"{norm}.weight", C)
        add(f"{norm}.bias", C)
    for i in range(s["layers"]):
        for name, n_out, n_in in (("attn_qkv", 3 * C, C), ("attn_output", C, C), ("ffn_up", 4 * C, C),
                                  ("ffn_down", C, 4 * C)):
            add(f"blk.{i}.{name}.weight", n_out, n_in)
            add(f"blk.{i}.{name}.bias", n_out)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantized(path, precision):
    """The path of the same model with integers for weights."""
    llama_cpp.llama_log_set(SILENT, None)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = FILE_TYPES[precision]
    to = path.with_name("quantized.gguf")
    if llama_cpp.llama_model_quantize(str(path).encode(), str(to).encode(), options):
        sys.exit(f"error: llama.cpp could not quantise the model to {precision}")
    return to


def main(s):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_model(path, s)
        if s["precision"] != "float32":
            path = quantized(path, s["precision"])
        print(f"llama.cpp, {s['precision']}: a file of {path.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
        model = llama_cpp.Llama(str(path), n_ctx=s["context"], n_batch=512, n_threads=s["threads"],
                                n_threads_batch=s["threads"], use_mmap=False, verbose=False)
    rng = np.random.default_rng(0)

    def read(length):
        model.reset()
        model.eval(rng.integers(s["vocabulary_size"], size=length).tolist())

    def next_token():
        logits = np.ctypeslib.as_array(model._ctx.get_logits(), (s["vocabulary_size"],))
        return int(logits.argmax())

    def decode(number):
        read(s["prompt"])
        return timed(lambda: [model.eval([next_token()]) for _ in range(number)])

    answer(decode=decode, prefill=lambda number: timed(lambda: read(number)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
