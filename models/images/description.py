"""Resolves what a pipeline's JSON files say into one `ImageSpec`; refuses what would not run or would run wrongly."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from diffusers import AutoencoderKL, ConfigMixin
from transformers import PreTrainedConfig

from models.files import CheckpointError, listing, read_json
from models.images.families import FAMILIES, ImageFamily, enter, family_of_pipeline, named_family
from models.images.spec import Guidance, ImageSpec, Prediction
from models.parts import find

PREDICTION_TYPES = {
    "epsilon": Prediction.epsilon,
    "v_prediction": Prediction.v,
    "flow_prediction": Prediction.flow,
}
FLUX_IMAGE_CELLS = 128
"""Cells along the edge of FLUX's default image; its config.json does not say (`FluxPipeline.default_sample_size`)."""


@dataclass(frozen=True)
class Description:
    family: ImageFamily
    spec: ImageSpec
    index: Mapping[str, Any]
    """model_index.json."""
    encoders: Mapping[str, str]
    """Tokenizer -> text encoder, by their folders; a T5 that the pipeline or the options leave out is not listed."""
    texts: Mapping[str, PreTrainedConfig]
    """Configuration of each of those text encoders."""
    prompt_width: int
    """Width of a prompt token's embedding."""


def read_description(folder: Path, max_sequence_length: int, wanted: str | None = None) -> Description:
    """Reads model_index.json and every component's config.json.

    Args:
        wanted: dotted path of an `ImageFamily` of the user's; None is the one that the pipeline names.

    Raises:
        CheckpointError: a file is missing, the pipeline is of no supported class, or two components do not fit.
    """
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            f"{folder / 'model_index.json'}: no such file; an image model (model.modality=image) must be the folder of "
            f"a diffusers pipeline, and here is {listing(folder)}"
        )
    index = read_json(folder / "model_index.json")
    family = _family(index) if wanted is None else _wanted_family(wanted, index)
    encoders = _encoders(family, index, max_sequence_length)
    for component in ["vae", "scheduler", family.denoiser, *encoders.keys(), *encoders.values()]:
        _require(folder, index, component)
    if index["vae"][1] != AutoencoderKL.__name__:
        raise CheckpointError(f"model_index.json says vae={index['vae'][1]}; only AutoencoderKL is supported")
    if index[family.denoiser][1] != family.network_class.__name__:
        raise CheckpointError(
            f"model_index.json says {family.denoiser}={index[family.denoiser][1]}; family {family.name} runs "
            f"{family.network_class.__name__} only"
        )

    network = _diffusers_config(folder / family.denoiser, family.network_class)
    vae = _diffusers_config(folder / "vae", AutoencoderKL)
    scheduler = {**read_json(folder / "scheduler" / "scheduler_config.json"), **family.scheduler_options}
    texts = {
        encoder: getattr(transformers, index[encoder][1]).config_class.from_dict(
            read_json(folder / encoder / "config.json")
        )
        for encoder in encoders.values()
    }
    _check_inputs(family, network)
    _check_channels(family, network, vae)
    _check_widths(family, network, texts)

    pixels_per_cell = 2 ** (len(vae["block_out_channels"]) - 1)
    patch = network["patch_size"] if family.patch is None else family.patch
    cells = network.get("sample_size", FLUX_IMAGE_CELLS)
    if not isinstance(cells, int):
        raise CheckpointError(f"{family.denoiser}/config.json says sample_size={cells}; it must be one integer")
    positions = network.get("pos_embed_max_size")
    embedded = network.get("guidance_embeds")
    spec = ImageSpec(
        family=family.name,
        prediction=_prediction(family, scheduler),
        guidance={None: Guidance.classifier_free, True: Guidance.embedded, False: Guidance.none}[embedded],
        distilled=embedded is False,
        latent_channels=vae["latent_channels"],
        pixels_per_cell=pixels_per_cell,
        patch=patch,
        image_size=cells * pixels_per_cell,
        largest_size=None if positions is None else positions * patch * pixels_per_cell,
        even_sigmas=family.even_sigmas,
        scheduler=scheduler,
    )
    prompt_width = network.get("cross_attention_dim") or network["joint_attention_dim"]  # a UNet's, a transformer's
    return Description(family, spec, index, encoders, texts, prompt_width)


def _family(index: Mapping[str, Any]) -> ImageFamily:
    class_name = index.get("_class_name")
    if (family := family_of_pipeline(class_name)) is not None:
        return family
    supported = ", ".join(family.pipeline_class.__name__ for family in FAMILIES.values())
    raise CheckpointError(
        f"model_index.json says _class_name={class_name!r}; supported: {supported}. A family of yours for another "
        f"pipeline is plugged in as docs/models.md says"
    )


def _wanted_family(wanted: str, index: Mapping[str, Any]) -> ImageFamily:
    family = enter(find(wanted, "model.family")) if "." in wanted else named_family(wanted)
    class_name = index.get("_class_name")
    if family is None or family.pipeline_class.__name__ != class_name:
        raise CheckpointError(
            f"model_index.json says _class_name={class_name!r}, and model.family={wanted} is another one: leave it out "
            f"or give the dotted path of an ImageFamily for this class"
        )
    return family


def _encoders(family: ImageFamily, index: Mapping[str, Any], max_sequence_length: int) -> dict[str, str]:
    if not 0 <= max_sequence_length <= 512:
        raise CheckpointError(f"model.max_sequence_length={max_sequence_length}; it must be between 0 and 512")
    encoders = dict(family.encoders)
    if family.name == "sd3" and (max_sequence_length == 0 or _class_of(index, "text_encoder_3") is None):
        del encoders["tokenizer_3"]
    elif family.t5 is not None and max_sequence_length == 0:
        raise CheckpointError(
            f"model.max_sequence_length=0, but family {family.name} reads its prompts through T5; give at least 1"
        )
    return encoders


def _class_of(index: Mapping[str, Any], component: str) -> str | None:
    return (index.get(component) or [None, None])[1]


def _require(folder: Path, index: Mapping[str, Any], component: str) -> None:
    if _class_of(index, component) is None:
        raise CheckpointError(f"model_index.json names no {component}, which the pipeline needs")
    library, class_name = index[component]
    if library not in ("diffusers", "transformers"):
        raise CheckpointError(
            f"model_index.json takes {component} from {library!r}; only classes of diffusers and transformers are used"
        )
    if library == "transformers" and not hasattr(transformers, class_name):
        raise CheckpointError(f"model_index.json says {component}={class_name}, which transformers does not have")
    if not (folder / component).is_dir():
        raise CheckpointError(
            f"{folder / component}: no such folder, but model_index.json names this component; there is "
            f"{listing(folder)}. denoiserl mend {shlex.quote(str(folder))} --from "
            f"{index.get('_name_or_path', 'OWNER/NAME')} copies it, from a model on the hub or a folder that has it"
        )


def _diffusers_config(folder: Path, component_class: type[ConfigMixin]) -> dict[str, Any]:
    """config.json with diffusers' defaults for what it leaves out."""
    parameters = inspect.signature(component_class.__init__).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters if parameter.name != "self"}
    return defaults | read_json(folder / "config.json")


def _check_inputs(family: ImageFamily, network: Mapping[str, Any]) -> None:
    for name, expected in {**family.fixed_fields, "quantization_config": None}.items():
        if network.get(name) != expected:
            raise CheckpointError(
                f"{family.denoiser}/config.json says {name}={network[name]!r}; family {family.name} is implemented for "
                f"{expected!r} only"
            )


def _check_channels(family: ImageFamily, network: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    channels = vae["latent_channels"] * (family.patch**2 if family.name == "flux" and family.patch else 1)
    for name in ("in_channels", "out_channels"):
        if network[name] != channels and not (name == "out_channels" and network[name] is None):
            raise CheckpointError(
                f"{family.denoiser}/config.json says {name}={network[name]}, but the VAE's {vae['latent_channels']} "
                f"latent channels need {channels}; this is the network or the VAE of another model"
            )


def _check_widths(family: ImageFamily, network: Mapping[str, Any], texts: Mapping[str, PreTrainedConfig]) -> None:
    """The text encoders' widths must be those of the inputs that they feed."""
    clips = [config for encoder, config in texts.items() if encoder != family.t5]
    wanted = dict(family.widths(network, clips))
    if family.t5 is not None and family.t5 in texts:
        wanted["joint_attention_dim"] = texts[family.t5].d_model
    hidden = sum(config.hidden_size for config in clips)
    if family.name == "sd3" and network["joint_attention_dim"] < hidden:
        raise CheckpointError(
            f"{family.denoiser}/config.json says joint_attention_dim={network['joint_attention_dim']}, but the "
            f"CLIP encoders' width is {hidden}; this is the network or the encoders of another model"
        )
    for name, width in wanted.items():
        if network[name] != width:
            raise CheckpointError(
                f"{family.denoiser}/config.json says {name}={network[name]}, but the text encoders give {width}; this "
                "is the network or the encoders of another model"
            )


def _prediction(family: ImageFamily, scheduler: Mapping[str, Any]) -> Prediction:
    class_name = str(scheduler.get("_class_name"))
    # Schedulers that know only flow matching have no prediction_type; the others' default is epsilon.
    default = "flow_prediction" if class_name.startswith("FlowMatch") else "epsilon"
    prediction_type = scheduler.get("prediction_type", default)
    prediction = PREDICTION_TYPES.get(prediction_type)
    if prediction not in family.predictions:
        known = " or ".join(name for name, value in PREDICTION_TYPES.items() if value in family.predictions)
        raise CheckpointError(
            f"scheduler_config.json ({class_name}) stands for prediction_type={prediction_type!r}, but models of "
            f"family {family.name} predict {known}; use the scheduler that the model was trained with"
        )
    return prediction
