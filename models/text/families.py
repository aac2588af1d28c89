"""The text model families: what a published checkpoint is called, how it is laid out, and what its tokens are.

Every published architecture here equals one of transformers' own classes up to names, the causal mask and, for Dream,
a shift of the logits. One declaration per family says how the names correspond; `models.text.checkpoint` reads
with it and `models.text.export` writes with it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from models.families import entered, loaded, plugged
from models.files import CheckpointError
from models.parts import find
from models.text import chat_templates
from models.text.unsupported import UNSUPPORTED, what_it_is

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from transformers import PreTrainedConfig, PreTrainedModel

SHIFT_NEEDS_FULL_ATTENTION = (
    "block-causal attention together with a logit shift is not supported: the first token of each block would be read "
    "at the last token of the block before, which saw nothing of its own block and is not part of a block-wise forward"
)


@dataclass(frozen=True)
class TextFamily:
    name: str
    model_types: tuple[str, ...]
    """`model_type` of config.json."""
    architectures: tuple[str, ...]
    """`architectures` of config.json, for checkpoints whose model_type is missing or was changed."""
    network: str
    """Of transformers' `...ForCausalLM` and `...Config`. A name, not classes: those take seconds to import, and whoever
    only reads prompts has no use for them."""

    config_fields: Mapping[str, tuple[str, ...]]
    """Field of transformers' config <- fields of the published config.json; the first that is not null is used."""
    optional_fields: frozenset[str]
    """Keys of `config_fields` that may be absent; transformers' default is then the published one."""
    fixed_fields: Mapping[str, Any]
    """Published fields that would change the computation, with the only value that transformers' class computes."""
    tensor_names: Mapping[str, str]
    """Transformers' tensor name -> published name, `{}` for the layer; names that are not listed are the same."""

    vocab_size: int | None
    """Rows of the published embedding. The ids and the chat template below hold for this vocabulary only; None: none
    is published."""
    mask_id: int | None
    pad_id: int | None
    stop_ids: tuple[int, ...]
    chat_template: str
    block_length: int | None = None
    """Block of the published attention; None is bidirectional. `block_size` in config.json overrides it."""
    logit_shift: int = 0
    adapts: tuple[str, ...] = ()
    """`model_type` of autoregressive models with the same network and names: `model.family` takes one for a model of
    this family that was not trained yet. Such a family comes with and without blocks: `model.block_length` says."""

    def __post_init__(self) -> None:
        if self.block_length is not None and self.logit_shift:
            raise ValueError(f"family {self.name}: {SHIFT_NEEDS_FULL_ATTENTION}")

    def published_name(self, name: str) -> str:
        """Published name of a tensor or module that transformers calls `name`."""
        layer = re.search(r"\.(\d+)\.", name)
        if layer is None:
            return self.tensor_names.get(name, name)
        template = name.replace(layer[0], ".{}.", 1)
        return self.tensor_names.get(template, template).format(layer[1])

    @property
    def network_class(self) -> type[PreTrainedModel]:
        import transformers

        return getattr(transformers, f"{self.network}ForCausalLM")

    def network_config(self, config: Mapping[str, Any]) -> PreTrainedConfig:
        """Transformers' config of a published config.json. Raises CheckpointError as `network_fields` does."""
        import transformers

        # pad_token_id stays out: transformers would freeze the embedding row of that id, which is a stop token too.
        without_ids = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
        config_class = getattr(transformers, f"{self.network}Config")
        return config_class(**self.network_fields(config), **without_ids, attention_dropout=0.0)

    def network_fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of transformers' config that a published config.json determines.

        Raises:
            CheckpointError: a field is missing, or asks for a computation that transformers' class does not do.
        """
        for name, expected in self.fixed_fields.items():
            if config.get(name) not in (None, expected):
                raise CheckpointError(
                    f"config.json says {name}={config[name]!r}; family {self.name} is implemented for {expected!r} only"
                )
        values: dict[str, Any] = {}
        for name, sources in self.config_fields.items():
            value = next((config[source] for source in sources if config.get(source) is not None), None)
            if value is not None:
                values[name] = value
            elif name not in self.optional_fields:
                raise CheckpointError(f"config.json lacks {' or '.join(sources)}, which family {self.name} needs")
        return values


_LLADA_FIELDS = MappingProxyType(
    {
        "vocab_size": ("embedding_size", "vocab_size"),
        "hidden_size": ("d_model",),
        "intermediate_size": ("mlp_hidden_size",),
        "num_hidden_layers": ("n_layers",),
        "num_attention_heads": ("n_heads",),
        "num_key_value_heads": ("n_kv_heads", "n_heads"),
        "max_position_embeddings": ("max_sequence_length",),
        "rms_norm_eps": ("rms_norm_eps",),
        "rope_theta": ("rope_theta",),
        "tie_word_embeddings": ("weight_tying",),
        "initializer_range": ("init_std",),
    }
)
_LLADA_FIXED = MappingProxyType(
    {
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "attention_layer_norm": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "input_emb_norm": False,
        "scale_logits": False,
        "multi_query_attention": False,
        "alibi": False,
        "rope": True,
        "rope_full_precision": True,
        "block_group_size": 1,
        "quantization_config": None,
    }
)
_LLADA_TENSORS = MappingProxyType(
    {
        "model.embed_tokens.weight": "model.transformer.wte.weight",
        "model.norm.weight": "model.transformer.ln_f.weight",
        "lm_head.weight": "model.transformer.ff_out.weight",
    }
    | {
        f"model.layers.{{}}.{ours}{suffix}": f"model.transformer.blocks.{{}}.{published}{suffix}"
        for ours, published in {
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ff_norm",
            "self_attn.q_proj": "q_proj",
            "self_attn.k_proj": "k_proj",
            "self_attn.v_proj": "v_proj",
            "self_attn.o_proj": "attn_out",
            "mlp.gate_proj": "ff_proj",
            "mlp.up_proj": "up_proj",
            "mlp.down_proj": "ff_out",
        }.items()
        for suffix in ("", ".weight")  # "" names the module, for adapters
    }
)

_QWEN_FIELDS = MappingProxyType(
    {
        name: (name,)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "rope_scaling",
            "rope_parameters",
            "tie_word_embeddings",
            "initializer_range",
        )
    }
)
_QWEN_OPTIONAL = frozenset(
    {"rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "initializer_range"}
)
_QWEN_FIXED = MappingProxyType({"hidden_act": "silu", "use_sliding_window": False, "quantization_config": None})
_LLAMA_FIELDS = MappingProxyType({**_QWEN_FIELDS, "head_dim": ("head_dim",)})
_LLAMA_FIXED = MappingProxyType(
    {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "quantization_config": None,
    }
)
_QWEN3_FIELDS = MappingProxyType({**_QWEN_FIELDS, "head_dim": ("head_dim",), "attention_bias": ("attention_bias",)})
_QWEN3_OPTIONAL = _QWEN_OPTIONAL | {"head_dim", "attention_bias"}


def _llada_like(name: str, **values: Any) -> TextFamily:
    return TextFamily(
        name=name,
        network="Llama",
        config_fields=_LLADA_FIELDS,
        optional_fields=frozenset({"initializer_range"}),
        fixed_fields=_LLADA_FIXED,
        tensor_names=_LLADA_TENSORS,
        mask_id=126336,  # <|mdm_mask|>
        pad_id=126081,  # <|endoftext|>
        stop_ids=(126081, 126348),  # <|endoftext|>, <|eot_id|>
        **values,
    )


def _qwen3_like(name: str, **values: Any) -> TextFamily:
    return TextFamily(
        name=name,
        network="Qwen3",
        config_fields=_QWEN3_FIELDS,
        optional_fields=_QWEN3_OPTIONAL,
        fixed_fields=_QWEN_FIXED,
        tensor_names=MappingProxyType({}),
        vocab_size=151936,
        mask_id=151669,  # first id after Qwen3's own tokens
        pad_id=151643,  # <|endoftext|>
        stop_ids=(151645, 151643),  # <|im_end|>, <|endoftext|>
        chat_template=chat_templates.CHATML,
        **values,
    )


# Sources, all public:
# LLaDA-8B Base, Instruct and 1.5: configuration_llada.py and modeling_llada.py (ML-GSAI, names as in OLMo), also in
#   ZHZisZZ/dllm, dllm/pipelines/llada. MMaDA-8B: Gen-Verse/MMaDA, models; 8192 image codes follow the text ids.
# Dream-7B and DiffuCoder: configuration_dream.py and modeling_dream.py, also in ZHZisZZ/dllm, dllm/pipelines/dream.
# SDAR and TraDo: JetAstra/SDAR, training/model/SDAR-4B-Chat (config, tensor names, tokenizer, template).
# A2D of Llama, Qwen2 and Qwen3: ZHZisZZ/dllm, dllm/pipelines/a2d. Its config.json does not tell the bidirectional
#   checkpoints (MDLM) from the block-diffusion ones (BD3LM): set `model.block_length=32`, the length they were trained
#   with, for the latter. Their mask is the first id behind the tokenizer's own; Llama's tables have no row left.
_FAMILIES: dict[str, TextFamily] = {
    family.name: family
    for family in (
        _llada_like(
            "llada",
            model_types=("llada",),
            architectures=("LLaDAModelLM",),
            vocab_size=126464,
            chat_template=chat_templates.LLADA,
        ),
        _llada_like(
            "mmada",
            model_types=("mmada",),
            architectures=("MMadaModelLM",),
            vocab_size=134656,
            chat_template=chat_templates.MMADA,
        ),
        TextFamily(
            name="dream",
            model_types=("Dream",),
            architectures=("DreamModel",),
            network="Qwen2",
            config_fields=_QWEN_FIELDS,
            optional_fields=_QWEN_OPTIONAL,
            fixed_fields=_QWEN_FIXED,
            tensor_names=MappingProxyType({}),
            vocab_size=152064,
            mask_id=151666,  # <|mask|>
            pad_id=151643,  # <|endoftext|>
            stop_ids=(151645, 151643),  # <|im_end|>, <|endoftext|>
            chat_template=chat_templates.DREAM,
            logit_shift=1,
        ),
        _qwen3_like("sdar", model_types=("sdar",), architectures=("SDARForCausalLM",), block_length=4),
        _qwen3_like("a2d-qwen3", model_types=("a2d-qwen3",), architectures=("A2DQwen3LMHeadModel",), adapts=("qwen3",)),
        TextFamily(
            name="a2d-qwen2",
            model_types=("a2d-qwen2",),
            architectures=("A2DQwen2LMHeadModel",),
            network="Qwen2",
            config_fields=_QWEN_FIELDS,
            optional_fields=_QWEN_OPTIONAL,
            fixed_fields=_QWEN_FIXED,
            tensor_names=MappingProxyType({}),
            vocab_size=151936,
            mask_id=151665,  # first id after Qwen2.5's own tokens
            pad_id=151643,  # <|endoftext|>
            stop_ids=(151645, 151643),  # <|im_end|>, <|endoftext|>
            chat_template=chat_templates.CHATML,
            adapts=("qwen2",),
        ),
        TextFamily(
            name="a2d-llama",
            model_types=("a2d-llama",),
            architectures=("A2DLlamaLMHeadModel",),
            network="Llama",
            config_fields=_LLAMA_FIELDS,
            optional_fields=_QWEN_OPTIONAL | {"head_dim"},
            fixed_fields=_LLAMA_FIXED,
            tensor_names=MappingProxyType({}),
            vocab_size=None,
            mask_id=None,
            pad_id=None,
            stop_ids=(),
            chat_template="",
            adapts=("llama",),
        ),
    )
}
FAMILIES: Mapping[str, TextFamily] = MappingProxyType(_FAMILIES)
"""By name; `enter` adds to them."""
_OURS = frozenset(_FAMILIES)


def enter(family: TextFamily) -> TextFamily:
    """Make a family known in this process, as if it were declared above; in place of an earlier one that was entered.

    Raises:
        CheckpointError: it is no family, or one that is declared above has its name.
    """
    return entered(family, TextFamily, _FAMILIES, _OURS)


def _installed() -> Mapping[str, EntryPoint]:
    return plugged("denoiserl.text_families", _OURS)


def recognise(config: Mapping[str, Any], override: str | None = None) -> TextFamily:
    """Family of a checkpoint: the one named by `override`, or the one that config.json names.

    Args:
        override: a name, or the dotted path of a `TextFamily` of yours.

    Raises:
        CheckpointError: no family matches; the message says what it is if that is known, and lists the families.
        PartError: nothing is at the path.
    """
    if override is not None and "." in override:
        return enter(find(override, "model.family"))
    names = dict.fromkeys([*FAMILIES, *_installed()])
    if override is not None:
        if override not in names:
            nearest = difflib.get_close_matches(override.lower(), names, n=1, cutoff=0.4)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise CheckpointError(f"unknown model family {override!r}; known families: {', '.join(names)}{meant}")
        return FAMILIES.get(override) or loaded(_installed()[override], TextFamily, _FAMILIES, _OURS)
    if (family := named_family(config)) is not None:
        return family
    for point in _installed().values():
        loaded(point, TextFamily, _FAMILIES, _OURS)
    claiming = [name for name in _installed() if config.get("model_type") in FAMILIES[name].model_types]
    if len(claiming) > 1:
        raise CheckpointError(
            f"config.json says model_type={config['model_type']!r}, which is of the families {' and '.join(claiming)}: "
            f"name one with model.family"
        )
    if (family := named_family(config)) is not None:
        return family
    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    said = f"config.json says model_type={model_type!r}, architectures={architectures}"
    adapting = next((family for family in FAMILIES.values() if model_type in family.adapts), None)
    if adapting is not None:
        raise CheckpointError(
            f"{said}: an autoregressive model, which has yet to learn to fill in masks. To train it as a diffusion "
            f"model, set model.family={adapting.name}, and model.block_length=32 for attention in blocks of 32"
        )
    raise CheckpointError(
        f"{said}: {what_it_is(model_type, architectures)}; known families: "
        f"{', '.join(names)}. If one of them has the same layout, name it with model.family; a family of yours is "
        f"plugged in as docs/models.md says"
    )


def named_family(config: Mapping[str, Any]) -> TextFamily | None:
    """The family that config.json names by itself."""
    model_type, architectures = config.get("model_type"), set(config.get("architectures") or [])
    for family in FAMILIES.values():
        if model_type in family.model_types and not (architectures - {*family.architectures}) & UNSUPPORTED.keys():
            return family
    return next((family for family in FAMILIES.values() if architectures & {*family.architectures}), None)
