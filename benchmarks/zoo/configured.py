"""Architectures of transformers and torch.nn, built small from configurations with seeded weights.

A callable per architecture, so that ``--mf-model benchmarks/zoo/configured.py:bert`` builds it. What a model gives
besides its first output (caches, attentions) is left out; where it has logits, these are its output.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = "x:int64[N,16]{3..98}"
IMAGE = "x:float32[N,3,64,64]"
AUDIO = "x:float32[N,4000]"
SEED = 20261130
# Of the tiny text models.
_TEXT = {
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_DECODER = {**_TEXT, "num_key_value_heads": 2}
_IMAGE = {
    "image_size": 64, "patch_size": 16, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128,
}  # fmt: skip
_CONV_AUDIO = {
    "conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 32,
}  # fmt: skip
# Name: the model's class in transformers, its input's keyword, the input, what its configuration says.
TRANSFORMERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "input_ids", IDS, _TEXT),
    "roberta": ("RobertaModel", "input_ids", IDS, {**_TEXT, "max_position_embeddings": 66}),
    "distilbert": (
        "DistilBertModel", "input_ids", IDS,
        {"vocab_size": 100, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 64},
    ),
    "albert": ("AlbertModel", "input_ids", IDS, {**_TEXT, "embedding_size": 32}),
    "electra": ("ElectraModel", "input_ids", IDS, {**_TEXT, "embedding_size": 32}),
    "mpnet": ("MPNetModel", "input_ids", IDS, {**_TEXT, "max_position_embeddings": 66}),
    "deberta": ("DebertaV2Model", "input_ids", IDS, {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c",
        "c2p"]}),
    "squeezebert": ("SqueezeBertModel", "input_ids", IDS, {**_TEXT, "embedding_size": 64}),
    "modernbert": ("ModernBertModel", "input_ids", IDS, {**_TEXT, "cls_token_id": 1, "sep_token_id": 2}),
    "gpt2": (
        "GPT2LMHeadModel", "input_ids", IDS,
        {"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
         "eos_token_id": 2},
    ),
    "opt": (
        "OPTForCausalLM", "input_ids", IDS,
        {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 128,
         "max_position_embeddings": 64, "word_embed_proj_dim": 64, "pad_token_id": 0},
    ),
    "llama": ("LlamaForCausalLM", "input_ids", IDS, _DECODER),
    "mistral": ("MistralForCausalLM", "input_ids", IDS, _DECODER),
    "qwen2": ("Qwen2ForCausalLM", "input_ids", IDS, _DECODER),
    "gemma": ("GemmaForCausalLM", "input_ids", IDS, {**_DECODER, "head_dim": 16}),
    "phi": ("PhiForCausalLM", "input_ids", IDS, _TEXT),
    "gpt_neox": ("GPTNeoXForCausalLM", "input_ids", IDS, _TEXT),
    "bloom": ("BloomForCausalLM", "input_ids", IDS, {"vocab_size": 100, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "t5_encoder": (
        "T5EncoderModel", "input_ids", IDS,
        {"vocab_size": 100, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    ),
    "vit": ("ViTModel", "pixel_values", IMAGE, _IMAGE),
    "deit": ("DeiTModel", "pixel_values", IMAGE, _IMAGE),
    "dinov2": ("Dinov2Model", "pixel_values", IMAGE, {**_IMAGE, "mlp_ratio": 2}),
    "beit": ("BeitModel", "pixel_values", IMAGE, _IMAGE),
    "clip_vision": ("CLIPVisionModel", "pixel_values", IMAGE, _IMAGE),
    "siglip_vision": ("SiglipVisionModel", "pixel_values", IMAGE, _IMAGE),
    "swin": (
        "SwinModel", "pixel_values", IMAGE,
        {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
    ),
    "convnext": (
        "ConvNextForImageClassification", "pixel_values", IMAGE,
        {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "num_labels": 10},
    ),
    "resnet": (
        "ResNetForImageClassification", "pixel_values", IMAGE,
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic",
         "num_labels": 10},
    ),
    "regnet": (
        "RegNetForImageClassification", "pixel_values", IMAGE,
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "groups_width": 8,
         "num_labels": 10},
    ),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", "pixel_values", IMAGE, {"depth_multiplier": 0.25,
        "num_labels": 10}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "pixel_values", IMAGE, {"depth_multiplier": 0.35,
        "num_labels": 10}),
    "segformer": (
        "SegformerForSemanticSegmentation", "pixel_values", IMAGE,
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4],
         "decoder_hidden_size": 32,
         "num_labels": 5},
    ),
    "mobilevit": (
        "MobileViTForImageClassification", "pixel_values", IMAGE,
        {"hidden_sizes": [32, 40, 48], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 160], "image_size": 64,
         "num_labels": 10},
    ),
    "poolformer": (
        "PoolFormerForImageClassification", "pixel_values", IMAGE,
        {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "num_labels": 10},
    ),
    "wav2vec2": ("Wav2Vec2ForCTC", "input_values", AUDIO, _CONV_AUDIO),
    "hubert": ("HubertForCTC", "input_values", AUDIO, _CONV_AUDIO),
    "whisper_encoder": (
        "WhisperEncoder", "input_features", "x:float32[N,80,200]",
        {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128,
         "max_source_positions": 100,
         "vocab_size": 100, "pad_token_id": 0},
    ),
    "audio_transformer": (
        "ASTForAudioClassification", "input_values", "x:float32[N,128,128]",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
         "max_length": 128,
         "num_mel_bins": 128, "num_labels": 10},
    ),
}  # fmt: skip


class First(nn.Module):
    """A model of transformers with one input and its first output."""

    def __init__(self, model: nn.Module, keyword: str) -> None:
        """``keyword`` is what the model calls its input."""
        super().__init__()
        self.model, self.keyword = model, keyword

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits or the last hidden state."""
        return self.model(**{self.keyword: x}, return_dict=False)[0]


def _transformers(name: str) -> nn.Module:
    import transformers

    kind, keyword, _, said = TRANSFORMERS[name]
    if kind == "WhisperEncoder":
        # not among the names that the package itself has
        from transformers.models.whisper import modeling_whisper as models
    else:
        models = transformers
    model_class = getattr(models, kind)
    config = model_class.config_class(**said)
    config._attn_implementation = "eager"  # noqa: SLF001 - the one that every model has
    config.use_cache = False
    torch.manual_seed(SEED)
    return _settled(First(model_class(config), keyword), name)


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _settled(module: nn.Module, name: str) -> nn.Module:
    """The module with batch statistics of its own activations, as a trained one has them, in evaluation mode.

    What transformers draws for a net with batch normalisation (0.02) dies out on the way to the output, so the
    convolutions of such nets are drawn anew (He et al. 2015, section 2.2).
    """
    norms = [part for part in module.modules() if isinstance(part, _NORMS)]
    module.eval()
    if norms:
        dims = re.findall(r"N|\d+", INPUTS[name].partition("[")[2].partition("]")[0])
        for part in module.modules():
            if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(part.weight)
        for part in norms:
            part.train()
            part.momentum = None  # the mean over all batches that come now
        with torch.no_grad():
            for _ in range(4):
                module(torch.randn([16 if dim == "N" else int(dim) for dim in dims]))
    return module.eval()


def _seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    @functools.wraps(make)
    def build() -> nn.Module:
        torch.manual_seed(SEED)
        return _settled(make(), make.__name__)

    return build


class Recurrent(nn.Module):
    """An LSTM or GRU over a sequence, with a head on every step."""

    def __init__(self, kind: str, *, layers: int = 1, both: bool = False) -> None:
        """``kind`` is the class of torch.nn; ``both``: also backwards."""
        super().__init__()
        self.net = getattr(nn, kind)(16, 32, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(64 if both else 32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits per step."""
        return self.head(self.net(x)[0])


class UNet(nn.Module):
    """Two levels down and up with skips."""

    def __init__(self) -> None:
        """Seeded by the caller."""
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map of four classes."""
        first = self.down(x)
        return self.out(torch.cat([first, self.up(self.middle(first))], 1))


class Style(nn.Module):
    """Style transfer: reflection, instance norm, a residual block, upsampling."""

    def __init__(self) -> None:
        """Seeded by the caller."""
        super().__init__()
        self.head = nn.Sequential(
            nn.ReflectionPad2d(4), nn.Conv2d(3, 16, 9), nn.InstanceNorm2d(16, affine=True), nn.ReLU()
        )
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.ReLU()
        )
        self.tail = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """An image of twice the size."""
        x = self.head(x)
        return self.tail(x + self.block(x))


@_seeded
def lstm() -> nn.Module:
    """One LSTM."""
    return Recurrent("LSTM")


@_seeded
def bilstm() -> nn.Module:
    """A bidirectional LSTM of two layers."""
    return Recurrent("LSTM", layers=2, both=True)


@_seeded
def gru() -> nn.Module:
    """A GRU of two layers."""
    return Recurrent("GRU", layers=2)


@_seeded
def transformer_encoder() -> nn.Module:
    """The encoder of torch.nn."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@_seeded
def unet() -> nn.Module:
    """A small U-Net."""
    return UNet()


@_seeded
def style() -> nn.Module:
    """A small style transfer net."""
    return Style()


@_seeded
def conv3d() -> nn.Module:
    """A net on volumes."""
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 16, 3), nn.GELU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


@_seeded
def temporal_conv() -> nn.Module:
    """Dilated convolutions over time."""
    return nn.Sequential(
        nn.Conv1d(8, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ELU(), nn.Conv1d(32, 32, 3, padding=2, dilation=2),
            nn.PReLU(32),
        nn.Conv1d(32, 4, 1),
    )  # fmt: skip


@_seeded
def tables() -> nn.Module:
    """A deep net on a table of 20 columns."""
    return nn.Sequential(
        nn.Linear(20, 64), nn.BatchNorm1d(64), nn.SELU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.Mish(),
            nn.Linear(64, 3),
        nn.Softmax(-1),
    )  # fmt: skip


@_seeded
def pixel_shuffle() -> nn.Module:
    """Super resolution by a factor of two."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2), nn.Hardsigmoid()
    )


PLAIN: dict[str, str] = {
    "lstm": "x:float32[N,12,16]", "bilstm": "x:float32[N,12,16]", "gru": "x:float32[N,12,16]",
    "transformer_encoder": "src:float32[N,12,32]", "unet": "x:float32[N,3,32,32]", "style": "x:float32[N,3,32,32]",
    "conv3d": "input:float32[N,1,12,12,12]", "temporal_conv": "input:float32[N,8,40]", "tables": "input:float32[N,20]",
    "pixel_shuffle": "input:float32[N,3,24,24]",
}  # fmt: skip
INPUTS: dict[str, str] = {**{name: said[2] for name, said in TRANSFORMERS.items()}, **PLAIN}
for _name in TRANSFORMERS:
    globals()[_name] = functools.partial(_transformers, _name)
