"""The tiny models of the golden files: names, families and sizes. Imports nothing, so that both generators can."""

TOKENS = 41  # past every sliding window and past the unscaled context of the llama3 scaling

COMMON = {"max_position_embeddings": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

LLAMA = {
    "vocab_size": 61,
    "hidden_size": 21,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 10,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

QWEN2 = {
    "vocab_size": 67,
    "hidden_size": 24,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}

QWEN3 = {
    "vocab_size": 59,
    "hidden_size": 20,
    "intermediate_size": 31,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}

MISTRAL = {
    "vocab_size": 63,
    "hidden_size": 18,
    "intermediate_size": 30,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 6,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": 7,
    "tie_word_embeddings": False,
}

# Directory -> family, the fields that differ, dtype of the stored weights, head, largest shard (None: one file).
MODELS = {
    "llama": ("llama", LLAMA, {}, "float32", "lm", None),
    "llama-tied-llama3": (
        "llama",
        LLAMA,
        {"tie_word_embeddings": True, "head_dim": 16, "rope_scaling": LLAMA3, "rope_theta": 500.0},
        "float32",
        "lm",
        None,
    ),
    "llama-linear": (
        "llama",
        LLAMA,
        {"attention_bias": True, "mlp_bias": True, "rope_scaling": {"rope_type": "linear", "factor": 2.5}},
        "float32",
        "lm",
        None,
    ),
    "llama-score": ("llama", LLAMA, {}, "float32", "score", None),
    "mistral": ("mistral", MISTRAL, {}, "float32", "lm", None),
    "mistral-f16": ("mistral", MISTRAL, {}, "float16", "lm", None),
    "qwen2": ("qwen2", QWEN2, {"eos_token_id": [2, 5]}, "float32", "lm", None),
    "qwen2-tied": ("qwen2", QWEN2, {"tie_word_embeddings": True, "num_key_value_heads": 1}, "float32", "lm", None),
    "qwen2-score": ("qwen2", QWEN2, {}, "float32", "score", None),
    "qwen3": ("qwen3", QWEN3, {}, "float32", "lm", None),
    "qwen3-sharded-bf16": ("qwen3", QWEN3, {"tie_word_embeddings": True}, "bfloat16", "lm", "6KB"),
}
