"""A detector on a backbone of its own: the configuration must say that there is no named one, which TOML can't."""

from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig


def build():
    """A tiny detector, two levels of features, five queries."""
    backbone = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2"],
    )
    config = DeformableDetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=5,
        num_labels=3,
        num_feature_levels=2,
        dropout=0.0,
        auxiliary_loss=False,
    )
    return DeformableDetrForObjectDetection(config)
