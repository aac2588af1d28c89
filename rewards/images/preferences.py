"""Published scores of a picture and its prompt by dual encoders: CLIP's similarity, PickScore and HPSv2.1.

Each is one `DualEncoder` with the weights, the preprocessing and the cut of long prompts that it was published with, so
that its numbers are comparable with those of papers. For long prompts and for what all captions share there is
`text_image_similarity`. All three are differentiable in the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewards.checkpoints import Checkpoint, check_preprocessing
from rewards.differentiable import differentiable
from rewards.images.dual_encoder import DualEncoder, dual_encoder
from rewards.images.preprocessing import Preprocessing, of_folder
from rewards.picture import batches

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")

CLIP_L = Checkpoint(
    "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", FILES, 1.71, "none named; code MIT"
)
PICK_SCORE = Checkpoint(
    "yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800", FILES, 3.95, "none named; code MIT"
)
HPS = Checkpoint("xswu/HPSv2", "697403c78157020a1ae59d23f111aa58ced35b0a", FILES, 3.95, "Apache-2.0")
"""Its one file, `HPS_v2.1_compressed.pt`, has open_clip's names: `rewards.images.open_clip` makes these files of it."""


@dataclass(frozen=True)
class Preset:
    """A dual encoder as it was published."""

    reward: str
    checkpoint: Checkpoint
    preprocessing: Preprocessing

    def encoder(self, path: str | None, preprocessing: str, device: str) -> DualEncoder:
        """
        Raises:
            ValueError: an option is unknown, the weights are not there, or the folder's preprocessing is not the
                published one and nobody asked for it.
        """
        check_preprocessing(self.reward, preprocessing)
        if path is None and self.checkpoint is HPS:
            raise ValueError(
                "the reward `hps_v2` needs args.path, a folder that `python -m rewards.images.open_clip` makes of "
                f"HPS_v2.1_compressed.pt ({HPS.repository} at {HPS.revision}, 1.97 GB, licence: {HPS.licence}) and of "
                "the configuration and tokenizer of laion/CLIP-ViT-H-14-laion2B-s32B-b79K: see docs/picture_rewards.md"
            )
        folder = self.checkpoint.folder(self.reward, path)
        if preprocessing == "folder":
            return dual_encoder(str(folder), device, of_folder(folder))
        self.preprocessing.check(folder)
        return dual_encoder(str(folder), device, self.preprocessing)

    def cosines(
        self, images: Tensor, prompts: list[str], path: str | None, preprocessing: str, device: str | None, batch: int
    ) -> tuple[Tensor, DualEncoder]:
        """(B,) cosines of pictures and their prompts, on the device of the pictures; and the encoder."""
        import torch

        parts = batches(self.reward, len(images), batch)
        place = device or str(images.device)
        encoder = self.encoder(path, preprocessing, place)
        found = []
        for part in parts:
            pictures = encoder.pictures(images[part].to(place))
            found.append((encoder.beginnings(prompts[part]) * pictures).sum(1))
        return torch.cat(found).to(images.device), encoder


CLIP_SCORE = Preset("clip_score", CLIP_L, Preprocessing())
PICK = Preset("pick_score", PICK_SCORE, Preprocessing())
HPS_V2 = Preset("hps_v2", HPS, Preprocessing(whole=True))


@differentiable
def clip_score(
    images: Tensor,
    prompts: list[str],
    path: str | None = None,
    preprocessing: str = "published",
    device: str | None = None,
    batch: int = 16,
    **_: Any,
) -> Tensor:
    """(B,) cosine of each picture with its prompt by OpenAI's CLIP ViT-L/14, without factor or clip.

    Args:
        path: folder with its files; None looks into the hub's cache, at the revision of `CLIP_L`.
        preprocessing: `published`, or `folder` for what the checkpoint's own file says.
        device: where the network is, such as `cuda:0`; None is where the pictures are.
        batch: pictures at a time.

    Raises:
        ValueError: see `Preset.encoder`.
    """
    return CLIP_SCORE.cosines(images, prompts, path, preprocessing, device, batch)[0]


@differentiable
def pick_score(
    images: Tensor,
    prompts: list[str],
    path: str | None = None,
    preprocessing: str = "published",
    device: str | None = None,
    batch: int = 16,
    **_: Any,
) -> Tensor:
    """(B,) PickScore (arXiv 2305.01569): the cosine times the model's own factor, about 100.

    Args and errors: as `clip_score`, with the revision of `PICK_SCORE`.
    """
    cosines, encoder = PICK.cosines(images, prompts, path, preprocessing, device, batch)
    return cosines * encoder.model.logit_scale.exp().to(images.device)


@differentiable
def hps_v2(
    images: Tensor,
    prompts: list[str],
    path: str | None = None,
    preprocessing: str = "published",
    device: str | None = None,
    batch: int = 16,
    **_: Any,
) -> Tensor:
    """(B,) HPSv2.1 (arXiv 2306.09341): the cosine. It sees the whole picture, on black where it is not square.

    Args and errors: as `clip_score`, but `path` must be given: what `rewards.images.open_clip` made.
    """
    return HPS_V2.cosines(images, prompts, path, preprocessing, device, batch)[0]
