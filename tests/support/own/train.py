# mypy: ignore-errors
"""Adapters as users make them: a base model, a PEFT config, some training steps, `save_pretrained`.

Nothing here is of this project's worker. An old environment's interpreter runs it: `python train.py FOLDER NAME…` makes
`FOLDER/NAME`, which is the folder that a user has after training: the base in `acme/…`, the adapter in `out`, a
checkpoint in `out/checkpoint-4`.
"""

import os
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM


def small_llama(**more):
    sizes = {
        "vocab_size": 640, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    return transformers.LlamaConfig(**{**sizes, **more})


def small_t5():
    return transformers.T5Config(
        vocab_size=512, d_model=64, d_kv=16, d_ff=160, num_layers=4, num_heads=4, decoder_start_token_id=0
    )


def base_model(config, auto=AutoModelForCausalLM, *, weights=False, **loading):
    """A random base model, as `from_pretrained` loads it; without `weights` only its config.json stays on the disk."""
    name = "acme/small-" + config.model_type
    torch.manual_seed(11)
    auto.from_config(config).save_pretrained(name)
    model = auto.from_pretrained(name, **loading)
    for file in Path(name).iterdir():
        if not weights and file.name != "config.json":
            file.unlink()
    return model


def lora(targets, **more):
    return LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": targets, "task_type": "CAUSAL_LM", **more})


def tokens(model):
    ids = torch.randint(3, model.config.vocab_size, (4, 24))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def train(model, batch=tokens, steps=8, rate=5e-3, **saving):
    """Train on random data, save a checkpoint on the way and the adapter at the end, with what a Trainer leaves."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate)
    model.train()
    for step in range(1, steps + 1):
        loss = model(**batch(model)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == steps // 2:
            model.save_pretrained(f"out/checkpoint-{step}", **saving)
            torch.save(optimizer.state_dict(), f"out/checkpoint-{step}/optimizer.pt")
    model.save_pretrained("out", **saving)
    torch.save({"learning_rate": rate, "per_device_train_batch_size": 4}, "out/training_args.bin")
    torch.save(optimizer.state_dict(), "out/optimizer.pt")


def lokr_alpha():
    config = peft.LoKrConfig(r=8, alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    train(get_peft_model(base_model(small_llama()), config))


def lora_bias_all():
    base = transformers.OPTConfig(
        vocab_size=640, hidden_size=96, ffn_dim=192, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=96, dropout=0.0,
    )  # fmt: skip
    train(get_peft_model(base_model(base), lora(["q_proj", "v_proj"], bias="all")))


def prefix_gpt2():
    base = transformers.GPT2Config(vocab_size=640, n_embd=96, n_layer=4, n_head=4, n_positions=128)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    train(get_peft_model(base_model(base), config), rate=0.1)


def lora_bin():
    """The base's weights stay, as of somebody who has the whole model."""
    model = base_model(small_llama(num_hidden_layers=5), weights=True)
    train(get_peft_model(model, lora(["q_proj", "v_proj"], lora_alpha=32, lora_dropout=0.05)), safe_serialization=False)


def dora():
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    train(get_peft_model(base_model(small_llama()), lora(targets, use_dora=True)))


def rslora_patterns():
    config = lora(
        ["q_proj", "v_proj", "up_proj", "down_proj"], use_rslora=True, alpha_pattern={"v_proj": 24},
        rank_pattern={"layers.0.self_attn.q_proj": 16, "down_proj": 4},
    )  # fmt: skip
    train(get_peft_model(base_model(small_llama(num_hidden_layers=6)), config))


def classifier():
    base = transformers.RobertaConfig(
        vocab_size=600, hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, num_labels=3,
        max_position_embeddings=80,
    )  # fmt: skip
    model = base_model(base, transformers.AutoModelForSequenceClassification)
    model = get_peft_model(model, lora(["query", "value"], task_type="SEQ_CLS"))
    train(model, lambda _: {**tokens(model), "labels": torch.randint(0, 3, (4,))})


def mixtral_experts():
    base = transformers.MixtralConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
    )  # fmt: skip
    train(get_peft_model(base_model(base), lora(["q_proj", "v_proj", "w1", "w2", "w3"], r=4, lora_alpha=8)))


def ia3_t5():
    model = base_model(small_t5(), AutoModelForSeq2SeqLM)
    train(get_peft_model(model, peft.IA3Config(task_type="SEQ_2_SEQ_LM")), rate=0.05)


def lora_t5():
    model = base_model(small_t5(), AutoModelForSeq2SeqLM)
    train(get_peft_model(model, lora(["q", "v", "wo"], task_type="SEQ_2_SEQ_LM")))


def vit():
    base = transformers.ViTConfig(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, image_size=32, patch_size=8,
        num_labels=5,
    )  # fmt: skip
    model = base_model(base, transformers.AutoModelForImageClassification)
    model = get_peft_model(model, lora(["query", "value"], modules_to_save=["classifier"], task_type=None))
    train(model, lambda _: {"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.randint(0, 5, (4,))})


def trainable_tokens_tied():
    model = base_model(small_llama(tie_word_embeddings=True))
    config = peft.TrainableTokensConfig(token_indices=[5, 17, 320, 639], target_modules=["embed_tokens"])
    ids = torch.tensor([[5, 40, 17, 9, 320, 77, 639, 5]])
    train(get_peft_model(model, config), lambda _: {"input_ids": ids, "labels": ids}, rate=0.05)


def high_layers():
    model = base_model(small_llama(num_hidden_layers=6))
    train(get_peft_model(model, lora(["q_proj", "o_proj"], layers_to_transform=[4, 5])))


def token_rows_and_lora():
    model = base_model(small_llama())
    ids = torch.tensor([[600, 40, 17, 9, 601, 77, 3, 5]])
    config = lora("all-linear", trainable_token_indices=[600, 601])
    train(get_peft_model(model, config), lambda _: {"input_ids": ids, "labels": ids})


def qwen2_bfloat16():
    base = transformers.Qwen2Config(
        vocab_size=640, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, torch_dtype="bfloat16",
    )  # fmt: skip
    model = base_model(base, torch_dtype=torch.bfloat16)
    train(get_peft_model(model, lora("all-linear", r=16), autocast_adapter_dtype=False), rate=2e-2)


def resized_vocabulary():
    """Eight tokens were added, and embedding and head are saved whole: the base's config.json has the old size."""
    model = base_model(small_llama())
    model.resize_token_embeddings(648)
    train(get_peft_model(model, lora(["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"])))


def gpt2_conv1d():
    base = transformers.GPT2Config(vocab_size=640, n_embd=96, n_layer=4, n_head=4, n_positions=128)
    train(get_peft_model(base_model(base), lora(["c_attn", "c_proj"], fan_in_fan_out=True)))


def adalora():
    config = peft.AdaLoraConfig(
        init_r=12, target_r=6, tinit=1, tfinal=1, deltaT=1, total_step=8, lora_alpha=16,
        target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base_model(small_llama()), config)
    train(model, rate=5e-2)


def whisper():
    base = transformers.WhisperConfig(
        vocab_size=512, d_model=64, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=16, max_source_positions=40,
        max_target_positions=40, pad_token_id=1, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = base_model(base, transformers.AutoModelForSpeechSeq2Seq)
    model = get_peft_model(model, lora(["q_proj", "v_proj"], task_type=None))
    train(model, lambda _: {"input_features": torch.randn(4, 16, 80), "labels": torch.randint(4, 512, (4, 12))})


def llava():
    """The language model alone is trained, as in most fine-tunings of such models."""
    base = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        text_config=small_llama(),
        image_token_index=639,
    )
    model = base_model(base, transformers.AutoModelForImageTextToText)
    model = get_peft_model(model, lora(r".*language_model.*\.(q_proj|v_proj)"))
    ids = torch.tensor([[5, *[639] * 16, 40, 17, 9]])
    train(model, lambda _: {"input_ids": ids, "pixel_values": torch.randn(1, 3, 32, 32), "labels": ids})


def two_adapters():
    """Two adapters in one model; `save_pretrained` puts each into a folder of its name."""
    model = get_peft_model(base_model(small_llama()), lora(["q_proj", "v_proj"]), adapter_name="policy")
    model.add_adapter("reference", lora(["k_proj", "o_proj"], r=4))
    train(model)


def gemma_embedding():
    """Embedding and head are one matrix, and the embedding is a target."""
    base = transformers.GemmaConfig(
        vocab_size=640, hidden_size=96, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4, head_dim=32,
        num_key_value_heads=1, max_position_embeddings=128,
    )  # fmt: skip
    train(get_peft_model(base_model(base), lora(["embed_tokens", "q_proj", "down_proj"])))


def oft():
    config = peft.OFTConfig(oft_block_size=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    train(get_peft_model(base_model(small_llama()), config))


def four_bits():
    """QLoRA: the base's own config.json says nothing of the 4 bits."""
    quantised = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = base_model(small_llama(), quantization_config=quantised)
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    train(get_peft_model(model, lora(["q_proj", "v_proj"])))
    return model


def four_bits_stored():
    """As `four_bits`, on a base whose config.json asks for the 4 bits."""
    four_bits().config.save_pretrained("acme/small-llama")


def lora_plain():
    train(get_peft_model(base_model(small_llama()), lora(["q_proj", "v_proj"])))


def main(folder, *names):
    for name in names:
        made = Path(folder, name)
        made.mkdir(parents=True)
        os.chdir(made)
        torch.manual_seed(len(name))
        globals()[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
