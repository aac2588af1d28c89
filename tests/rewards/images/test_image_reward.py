"""ImageReward from a file with its names, against BLIP written out."""

from __future__ import annotations

import json
import string

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertTokenizer

from rewards.images.image_reward import image_reward
from tests.rewards.images import tiny_clip

WIDE, WIDTH, HEADS, LAYERS, PATCH, TEXT_HEADS = 128, 32, 2, 2, 112, 4
"""Of the vision transformer, whose heads are 64 wide, and of the text encoder."""
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *string.ascii_lowercase,
    *(f"##{c}" for c in string.ascii_lowercase),
]
HEAD = ((0, WIDTH, 12), (2, 12, 8), (4, 8, 6), (6, 6, 4), (7, 4, 1))
MED = {
    "vocab_size": len(WORDS) + 2,  # two words of BLIP's own, which ImageReward never asks for
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": TEXT_HEADS,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "encoder_width": 768,
    "add_cross_attention": True,
}


def random_state() -> dict[str, Tensor]:
    """As `ImageReward.pt` names its weights."""
    draw = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, into: int, out: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    see, read = "blip.visual_encoder", "blip.text_encoder"
    shapes |= {f"{see}.cls_token": (1, 1, WIDE), f"{see}.pos_embed": (1, 5, WIDE)}
    shapes |= {f"{see}.patch_embed.proj.weight": (WIDE, 3, PATCH, PATCH), f"{see}.patch_embed.proj.bias": (WIDE,)}
    norm(f"{see}.norm", WIDE)
    shapes[f"{read}.embeddings.word_embeddings.weight"] = (MED["vocab_size"], WIDTH)
    shapes[f"{read}.embeddings.position_embeddings.weight"] = (40, WIDTH)
    norm(f"{read}.embeddings.LayerNorm", WIDTH)
    for layer in range(LAYERS):
        block, text = f"{see}.blocks.{layer}", f"{read}.encoder.layer.{layer}"
        for index in (1, 2):
            norm(f"{block}.norm{index}", WIDE)
        linear(f"{block}.attn.qkv", WIDE, 3 * WIDE)
        linear(f"{block}.attn.proj", WIDE, WIDE)
        linear(f"{block}.mlp.fc1", WIDE, 4 * WIDE)
        linear(f"{block}.mlp.fc2", 4 * WIDE, WIDE)
        for kind, source in (("attention", WIDTH), ("crossattention", WIDE)):
            linear(f"{text}.{kind}.self.query", WIDTH, WIDTH)
            linear(f"{text}.{kind}.self.key", source, WIDTH)
            linear(f"{text}.{kind}.self.value", source, WIDTH)
            linear(f"{text}.{kind}.output.dense", WIDTH, WIDTH)
            norm(f"{text}.{kind}.output.LayerNorm", WIDTH)
        linear(f"{text}.intermediate.dense", WIDTH, 48)
        linear(f"{text}.output.dense", 48, WIDTH)
        norm(f"{text}.output.LayerNorm", WIDTH)
    linear("blip.vision_proj", WIDE, 8)
    linear("blip.text_proj", WIDTH, 8)
    for place, into, out in HEAD:
        linear(f"mlp.layers.{place}", into, out)
    state = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    state[f"{see}.patch_embed.proj.weight"] *= 0.05
    for name, weight in state.items():
        if "norm" in name.lower() and name.endswith("weight"):
            weight += 1
    return state | {f"{read}.embeddings.position_ids": torch.arange(40)[None]}


class WrittenOut:
    """ImageReward's forward pass in plain operations, one pair at a time."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str, epsilon: float) -> Tensor:
        spread = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt()
        return spread * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, visible: Tensor | None = None) -> Tensor:
        """(N, W) of queries (N, W), keys and values (M, W)."""
        mixed = []
        for part in zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True):
            scores = part[0] @ part[1].T / part[0].shape[-1] ** 0.5
            if visible is not None:
                scores = scores.masked_fill(~visible, -torch.inf)
            mixed.append(scores.softmax(-1) @ part[2])
        return torch.cat(mixed, -1)

    def see(self, pixels: Tensor) -> Tensor:
        """(5, WIDE): pre-norm blocks, epsilon 1e-6, exact GELU."""
        at = "blip.visual_encoder"
        patches = functional.conv2d(
            pixels, self.state[f"{at}.patch_embed.proj.weight"], self.state[f"{at}.patch_embed.proj.bias"], stride=PATCH
        )
        x = torch.cat([self.state[f"{at}.cls_token"][0], patches[0].flatten(1).T]) + self.state[f"{at}.pos_embed"][0]
        for layer in range(LAYERS):
            block = f"{at}.blocks.{layer}"
            q, k, v = self.linear(self.norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, -1)
            x = x + self.linear(self.attend(q, k, v, HEADS), f"{block}.attn.proj")
            hidden = functional.gelu(self.linear(self.norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
            x = x + self.linear(hidden, f"{block}.mlp.fc2")
        return self.norm(x, f"{at}.norm", 1e-6)

    def read(self, ids: list[int], seen: Tensor) -> Tensor:
        """(35, WIDTH): post-norm layers that look at the words, then at the picture."""
        at = "blip.text_encoder"
        padded = torch.tensor(ids + [0] * (35 - len(ids)))
        visible = torch.arange(35) < len(ids)
        places = self.state[f"{at}.embeddings.position_embeddings.weight"][:35]
        x = self.state[f"{at}.embeddings.word_embeddings.weight"][padded] + places
        x = self.norm(x, f"{at}.embeddings.LayerNorm", 1e-12)
        for layer in range(LAYERS):
            text = f"{at}.encoder.layer.{layer}"
            for kind, source, mask in (("attention", None, visible), ("crossattention", seen, None)):
                other = x if source is None else source
                q = self.linear(x, f"{text}.{kind}.self.query")
                k, v = (self.linear(other, f"{text}.{kind}.self.{part}") for part in ("key", "value"))
                mixed = self.linear(self.attend(q, k, v, TEXT_HEADS, mask), f"{text}.{kind}.output.dense")
                x = self.norm(x + mixed, f"{text}.{kind}.output.LayerNorm", 1e-12)
            hidden = functional.gelu(self.linear(x, f"{text}.intermediate.dense"))
            x = self.norm(x + self.linear(hidden, f"{text}.output.dense"), f"{text}.output.LayerNorm", 1e-12)
        return x

    def score(self, pixels: Tensor, ids: list[int]) -> float:
        x = self.read(ids, self.see(pixels))[0]
        for place, _, _ in HEAD:
            x = self.linear(x, f"mlp.layers.{place}")
        return (x.item() - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("image_reward")
    torch.save(random_state(), root / "ImageReward.pt")
    (root / "med_config.json").write_text(json.dumps(MED))
    tokenizer = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(tokenizer)
    (tokenizer / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')  # as published
    return str(root), str(tokenizer)


def spelled(word: str) -> list[int]:
    """Letters of a word as its tokens, by hand: the first stands alone, the others go on."""
    return [WORDS.index(word[0]), *(WORDS.index(f"##{letter}") for letter in word[1:])]


def test_it_is_the_published_network(folders):
    images = [tiny_clip.noise(shape) for shape in ((150, 301),) * 3]
    prompts = ["A red cat", "dog", "a blue house with a very large red door and a dog"]
    path, tokenizer = folders
    found = image_reward(completions=images, prompts=prompts, path=path, tokenizer=tokenizer, batch=2)
    begin, end = WORDS.index("[CLS]"), WORDS.index("[SEP]")
    for image, prompt, score in zip(images, prompts, found, strict=True):
        letters = [token for word in prompt.lower().split() for token in spelled(word)]
        ids = [begin, *letters[:33], end]
        expected = WrittenOut(random_state()).score(tiny_clip.middle(image, nearest=True), ids)
        assert score == pytest.approx(expected, abs=1e-4)
    assert abs(found[0] - found[1]) > 1e-2


def test_it_has_a_gradient(folders):
    path, tokenizer = folders
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    image_reward.of_images(images, prompts=["a cat"], path=path, tokenizer=tokenizer).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blip.visual_encoder.norm.bias": None}, r"blip.visual_encoder do not fit: post_layernorm.bias \(lacking"),
        ({"blip.text_encoder.pooler.dense.bias": torch.zeros(4)}, r"pooler.dense.bias .* wanted nothing"),
        ({"blip.visual_encoder.head.bias": torch.zeros(4)}, "visual_encoder.head.bias' is no weight of ImageReward"),
        ({"queue": torch.zeros(4)}, "'queue' is no weight of ImageReward"),
        ({"mlp.layers.7.bias": None}, r"layers.N.\* are expected"),
    ],
)
def test_every_weight_is_used_and_none_is_made_up(change, message, folders, tmp_path):
    state = {name: weight for name, weight in (random_state() | change).items() if weight is not None}
    torch.save(state, tmp_path / "ImageReward.pt")
    (tmp_path / "med_config.json").write_text(json.dumps(MED))
    with pytest.raises(ValueError, match=message):
        image_reward(completions=[tiny_clip.noise((8, 8))], prompts=["a"], path=str(tmp_path), tokenizer=folders[1])


def test_missing_files_say_what_to_download(folders, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    image = tiny_clip.noise((8, 8))
    with pytest.raises(ValueError, match=r"hf download zai-org/ImageReward ImageReward.pt .*5736be03b265.*1.79 GB"):
        image_reward(completions=[image], prompts=["a"])
    with pytest.raises(ValueError, match=r"hf download google-bert/bert-base-uncased .* set args.tokenizer to it"):
        image_reward(completions=[image], prompts=["a"], path=folders[0])
