"""What kind of number a key of a model's configuration holds, by the words in its name.

Architectures call the same things by many names, and new ones appear with every release. So the table below knows words
and endings, not architectures. The first row that matches decides. A key that no row matches keeps its value.
"""

from __future__ import annotations

import enum
import functools
import re


class Kind(enum.Enum):
    """How a value follows when its model gets smaller."""

    DROP = "drop"
    """Says where the model comes from, or names the user's labels: left out."""
    ZERO = "zero"
    """The strength of something random: 0."""
    KEEP = "keep"
    """Stays, although a row below matches."""
    TOKEN = "token"
    """The id of a token, or a list of them."""
    VOCABULARY = "vocabulary"
    LAYERS = "layers"
    """The number of layers of a stack."""
    BLOCKS = "blocks"
    """The numbers of blocks of the stages."""
    FIRST_LAYERS = "first layers"
    """So many layers at the beginning are different."""
    LAST_LAYERS = "last layers"
    """So many layers at the end are different."""
    LAYER_INDEX = "layer index"
    """The number of a layer, or a list of them; negative numbers count from the end."""
    STAGE_INDEX = "stage index"
    """A number of layers after which something is taken, or a list of them; also as words (`stage12`)."""
    PERIOD = "period"
    """Every so many layers, one is different."""
    OFFSET = "offset"
    """The first layer of those that a period chooses."""
    HEADS = "heads"
    HEAD_SIZE = "head size"
    ROTARY_SIZE = "rotary size"
    """The part of a head that rotates."""
    ROTARY_SECTIONS = "rotary sections"
    """The shares of half of the rotating part; they add up to it."""
    ROTARY_FACTORS = "rotary factors"
    """One factor for each frequency: half of the rotating part."""
    EXPERTS = "experts"
    EXPERTS_USED = "experts used"
    EXPERT_GROUPS = "expert groups"
    EXPERT_GROUPS_USED = "expert groups used"
    LENGTH = "length"
    """The rows of a table: positions, codes of a codebook."""
    SHORTER_LENGTH = "shorter length"
    """Positions before they were stretched: fewer than there are now."""
    WINDOW = "window"
    """Positions that a layer sees at once."""
    IMAGE = "image"
    PATCH = "patch"
    PATCHES = "patches"
    """Tokens that stand for one image."""
    GROUPS = "groups"
    """Groups of channels; they divide the widths."""
    WIDTH = "width"


_TABLE: tuple[tuple[Kind, str], ...] = (
    (Kind.DROP, r"_?name_or_path|transformers_version|architectures|torch_dtype|dtype|auto_map|_commit_hash|id2label"
                r"|label2id|task_specific_params|finetuning_task|_attn_implementation\w*|quantization_config"
                r"|model_args|_\w+_internal|tokenizer_class|processor_class|prefix|custom_pipelines"),
    (Kind.ZERO, r"\w*drop(out|path)?(_\w+)?|\w*_?pdrop|\w*dropout\w*|\w*layerdrop|\w*jitter\w*"
                r"|mask_(time|feature)_prob"),
    (Kind.ROTARY_FACTORS, r"(long|short)_factor"),
    (Kind.KEEP, r"chunk_size_feed_forward|pretraining_tp|num_return_sequences|type_vocab_size|temporal_patch_size"
                r"|num_labels|num_classes|spatial_merge_size|merge_size|\w*conv_kernel_size|pooling_kernel_size"
                r"|\w*kernel_sizes?|\w*strides?|\w*_stride|\w*padding|\w*dilations?|\w*_ratios?|\w*_rates?|\w*_levels"
                r"|num_channels|in_chans|sampling_rate|\w*_ignore_index|layer_id|mlp_ratio|lang_id|expand|expansion_ratio"
                r"|max_num_tiles|frequency_embedding_size|\w*_points|query_dim|num_feature_levels|\w*_conv_kernel"
                r"|patch_sizes|(max|min)_depth|layer_types|no_rope_layers|moe_layers|linear_conv_kernel_dim|d_conv|mamba_d_(conv|state)"
                r"|head_in_index|max_symbols_per_step|audio_channels|\w*_factor|num_beams|num_frames"),
    (Kind.TOKEN, r"\w*token_(id|ids|index|idx|indices)|(eos|bos|pad|sep|cls|unk|mask|eoi|boi|eoa|boa|image|video|audio)"
                 r"_(id|index|idx|token)|\w*suppress_tokens|tokens_to_\w+|bad_words_ids|\w*_tokens_ids"),
    (Kind.VOCABULARY, r"(\w*_)?vocab(ulary)?_size\w*|vocab_size\w*|n_vocab|num_tokens"),
    (Kind.FIRST_LAYERS, r"first_k_dense_replace|num_dense_layers|max_window_layers|num_hash_layers"),
    (Kind.LAST_LAYERS, r"num_kv_shared_layers"),
    (Kind.KEEP, r"num_nextn_predict_layers|mtp_num_\w*layers|num_mtp_\w+|num_feat_extract_layers|num_adapter_layers"
                r"|n_layers_per_\w+|num_residual_layers"),
    (Kind.STAGE_INDEX, r"out_indices|out_features"),
    (Kind.DROP, r"stage_names"),
    (Kind.LAYER_INDEX, r"\w*(layer|block|attn)_(idx|ids|id|index|indexes|indices)"
                       r"|\w*layers?_(idx|ids|index|indexes|indices)|deepstack_visual_indexes|vision_feature_layers?"
                       r"|mlp_only_layers|cross_attention_layers|feature_layers?|select_layer|full_attention_layers"
                       r"|global_attention_blocks|attn_layers?_idx|global_attn_every_idx|look_\w+_layers"),
    (Kind.PERIOD, r"\w*(interval|layer_period|sparse_step|_frequency|layer_freq|every_n_layers|layers_block_type_period"
                  r"|sliding_window_pattern|layer_step|interleave_\w+_step)"),
    (Kind.OFFSET, r"\w*layer_offset"),
    (Kind.LAYERS, r"(\w*_)?(num_)?(hidden_|encoder_|decoder_|transformer_|blocks?_)?layers|n_layers?|(\w*_)?depth"
                  r"|(\w*_)?num_hidden_layers|num_layers?_\w+|num_blocks|num_encoder_blocks|(encoder|decoder)_num_layers"),
    (Kind.BLOCKS, r"depths|layer_depths|blocks_per_stage|stage_num_blocks|num_block_repeats|stage_numb_of_layers"
                  r"|(encoder|decoder)_depths"),
    (Kind.PERIOD, r"global_attn_every_n_layers"),
    (Kind.HEADS, r"\w*(n|num)_(\w+_)?heads?(_kv|_per_stage)?|(\w+_)?heads|kv_n_heads|n_head_kv|\w*attention_heads"
                 r"|num_attention_groups|multi_query_group_num|num_kv_groups"),
    (Kind.ROTARY_SIZE, r"rotary_(dim|ndims)|rope_dim"),
    (Kind.ROTARY_SECTIONS, r"\w*rope_sections?|mrope_section"),
    (Kind.HEAD_SIZE, r"\w*head_(dim|size)|d_kv|dim_head|\w*d_head|kv_channels|head_channels|size_per_head"
                     r"|query_pre_attn_scalar|attention_key_value_dim"),
    (Kind.EXPERTS_USED, r"num_experts_per_tok(en)?|moe_top_?k|top_?k_experts|router_top_?k|moe_k|num_selected_experts"
                        r"|num_experts_per_token|experts_top_?k|experts_per_token"),
    (Kind.KEEP, r"\w*shared_experts?"),
    (Kind.EXPERT_GROUPS, r"n_group|num_expert_groups?|n_expert_groups?"),
    (Kind.EXPERT_GROUPS_USED, r"topk_group|num_limited_groups"),
    (Kind.EXPERTS, r"(num|n)_(\w+_)?experts|moe_num_experts|num_local_experts|\w*_num_experts|expert_num"),
    (Kind.PATCHES, r"image_seq_length|mm_tokens_per_image|num_image_tokens|image_token_num|num_patches|image_seq_len"
                   r"|vision_soft_tokens_per_image|default_output_length"),
    (Kind.WINDOW, r"\w*sliding_window(_size)?|\w*attention_window|local_attention|window_size|attention_chunk_size"
                  r"|block_length|attention_context_(left|right)|chunk_size|local_window_size|attention_window_size"),
    (Kind.SHORTER_LENGTH, r"original_max_position_embeddings"),
    (Kind.LENGTH, r"\w*max_(\w+_)?position_embeddings|\w*max_(source|target)_positions|max_(sequence|seq)_len(gth)?"
                  r"|n_(positions|ctx)|block_size|\w*max_length|model_max_length|seq_length|context_length|max_seq_len"
                  r"|num_position_embeddings|max_pos(ition)?_emb|log_scaling_n_floor|position_embedding_size"
                  r"|\w*codebook_size|num_embeddings|position_buckets|max_relative_positions|rel_extent|pos_emb_(height|width)"),
    (Kind.IMAGE, r"\w*(image|img|input|crop)_(size|resolution)|resolution"),
    (Kind.PATCH, r"patch_size|encoder_patch_size"),
    (Kind.GROUPS, r"(\w*_)?(num_)?(n_)?groups|\w*_groups|num_conv_pos_embedding_groups|\w*num_groups"),
    (Kind.WIDTH, r"\w*(hidden|intermediate|inner|ffn?|feedforward|feed_forward|model|embed(ding)?s?|emb|embd|proj"
                 r"|projection|mlp|expert|lora|rank|codebook|codevector|channels?|filters|units|latent|pooler|output|out"
                 r"|state|bottleneck|adapter|features|text|vision|vec|attention)_?(hidden_)?(size|dim|dims|sizes|rank"
                 r"|width|channels|units)\w*"),
    (Kind.WIDTH, r"d_(model|ff|inner|embed|mlp|ffn|proj|hidden|expert)|n_(embd|inner|embed)|width|dim|dims|\w*_dims?"
                 r"|\w*hidden_(size|dim)s?|\w*_width|\w*(channels|filters|units|planes|features)|\w*_rank|\w*_lora_\w+"
                 r"|\w*_channel|\w*_dim_per_stage|\w*channel_list|lru_width|mamba_d_ssm|\w*_sizes"
                 r"|num_codevectors_per_group|fpn_hidden_size|num_conv_pos_embeddings|\w*dim_(ff|feedforward|model_base)|dff|hc_lowrank|\w*feature_size"),
)  # fmt: skip
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _TABLE)


@functools.lru_cache(maxsize=4096)
def kind_of(key: str) -> Kind:
    """The kind of the number under a key."""
    return next((kind for kind, pattern in _COMPILED if pattern.fullmatch(key)), Kind.KEEP)
