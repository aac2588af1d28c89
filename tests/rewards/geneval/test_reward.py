"""GenEval's networks on tiny random checkpoints, against their published steps written out; and the whole of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from rewards.geneval import reward
from rewards.geneval.colours import colours
from rewards.geneval.detector import Detector
from rewards.geneval.reward import geneval
from rewards.geneval.rules import COLOURS, OBJECTS, Found
from rewards.images.dual_encoder import DualEncoder
from rewards.images.preprocessing import Preprocessing
from tests.rewards.images import tiny_clip
from tests.rewards.images.test_dual_encoder import LIMIT, tokenizer

COCO = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}
EDGES = (64, 107)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    swin = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=9,
        id2label=dict(enumerate(COCO.get(name, name) for name in OBJECTS)),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mask2FormerForUniversalSegmentation(config)
        for weight in network.class_predictor.parameters():
            weight.data.add_(torch.randn_like(weight))
    folder = tmp_path_factory.mktemp("mask2former")
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(tmp_path_factory.mktemp("clip"))


def written_out(folder: Path, image: np.ndarray) -> list[tuple[str, float, tuple[float, ...]]]:
    """mmdetection's steps on one picture: kinds, confidences and boxes, the surest first."""
    height, width = image.shape[:2]
    scale = min(107 / max(height, width), 64 / min(height, width))
    tall, wide = int(height * scale + 0.5), int(width * scale + 0.5)
    # bilinear without antialiasing, by hand: at enlarged pixels the same as Pillow's
    assert scale > 1
    channels = [
        np.asarray(Image.fromarray(image[:, :, c].astype(np.float32)).resize((wide, tall), Image.Resampling.BILINEAR))
        for c in range(3)
    ]
    pixels = (np.stack(channels).round() - np.array([[[123.675]], [[116.28]], [[103.53]]])) / np.array(
        [[[58.395]], [[57.12]], [[57.375]]]
    )
    padded = np.zeros((1, 3, -(-tall // 32) * 32, -(-wide // 32) * 32), np.float32)
    padded[0, :, :tall, :wide] = pixels
    network = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        output = network(pixel_values=torch.from_numpy(padded))
    masks = torch.nn.functional.interpolate(output.masks_queries_logits, padded.shape[2:], mode="bilinear")
    masks = torch.nn.functional.interpolate(masks[..., :tall, :wide], (height, width), mode="bilinear")[0].numpy()
    logits = output.class_queries_logits[0].double().numpy()
    kinds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    pairs = sorted(np.ndindex(len(kinds), 80), key=lambda pair: -kinds[pair])[:100]
    found = []
    for query, kind in pairs:
        inside = masks[query] > 0
        if inside.any():
            sure = (1 / (1 + np.exp(-masks[query][inside].astype(float)))).mean()
            rows, columns = np.nonzero(inside)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            found.append((OBJECTS[kind], float(kinds[query, kind] * sure), tuple(map(float, box))))
    return sorted(found, key=lambda each: -each[1])


def test_objects_are_found_as_published(detector):
    image = tiny_clip.noise((40, 52))
    found = Detector(detector, "cpu", EDGES)(image)
    ordered = sorted(
        ((kind, each.score, each.box) for kind, objects in found.items() for each in objects), key=lambda e: -e[1]
    )
    expected = written_out(detector, image)
    assert len(ordered) == len(expected) > 20
    assert [each[1] for each in ordered] == pytest.approx([each[1] for each in expected], abs=1e-5)
    clear = [i for i in range(20) if expected[i][1] - expected[i + 1][1] > 1e-4 < expected[i - 1][1] - expected[i][1]]
    assert len(clear) > 5
    for index in clear:
        assert (ordered[index][0], ordered[index][2]) == (expected[index][0], expected[index][2])
    for objects in found.values():
        for each in objects:
            assert each.mask is not None
            assert each.mask.shape == (40, 52)


def test_colours_are_named_as_published(clip):
    """A mask on grey, a crop, three sentences a colour."""
    image = tiny_clip.noise((90, 80), seed=3)
    mask = np.zeros((90, 80), bool)
    mask[20:60, 10:50] = True
    objects = [Found((10, 20, 50, 60), 0.9, mask), Found((30, 5, 79, 88), 0.8)]
    grey = np.where(mask[:, :, None], image, np.uint8(0x99))
    network = CLIPModel.from_pretrained(clip)
    expected = []
    for cut in (grey[20:60, 10:50], image[5:88, 30:79]):
        logits = []
        for colour in COLOURS:
            sentences = [
                f"a photo of a {colour} dog",
                f"a photo of a {colour}-colored dog",
                f"a photo of a {colour} object",
            ]
            tokens = tokenizer()(sentences, return_tensors="pt", padding=True, truncation=True, max_length=LIMIT)
            with torch.no_grad():
                output = network(**tokens, pixel_values=tiny_clip.middle(np.ascontiguousarray(cut), nearest=True))
            mean = output.text_embeds.mean(0)
            logits.append(float(output.image_embeds[0] @ mean / mean.norm()))
        expected.append(COLOURS[int(np.argmax(logits))])
    encoder = DualEncoder(str(clip), "cpu", Preprocessing(nearest=True))
    assert colours(encoder, image, objects, "dog") == expected


def test_the_whole_of_it(detector, clip, monkeypatch):
    """Rows as GenEval's file has them: what was asked for is what the detector said it found."""
    monkeypatch.setattr(reward, "Detector", lambda folder, device: Detector(folder, device, EDGES))
    reward._detector.cache_clear()
    image = tiny_clip.noise((40, 52))
    (kind, score, _), *_ = written_out(detector, image)
    absent = next(name for name in OBJECTS if name not in {each[0] for each in written_out(detector, image)})
    include = [[{"class": kind, "count": 1}], [{"class": absent, "count": 1}], None, [{"class": kind, "count": 1}]]
    args = {
        "tag": ["single_object", "single_object", None, "counting"],
        "exclude": [None, None, None, [{"class": absent, "count": 1}]],
        "path": str(detector),
        "clip": str(clip),
        "threshold": score - 1e-3,
    }
    found = geneval(completions=[image] * 4, include=include, **args, counting_threshold=score + 1e-3)
    assert found == [1.0, 0.0, None, 0.0]  # what is counted must be surer
    assert geneval(completions=[image] * 4, include=include, **args, counting_threshold=0.0, scoring="shaped")[0] == 1.0
    with pytest.raises(ValueError, match="GenEval has no task 'colours'"):
        geneval(completions=[image], include=include[:1], tag=["colours"], path=str(detector), clip=str(clip))
    reward._detector.cache_clear()


def test_wrong_arguments_say_what_to_give(detector, clip, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    args = {"completions": [tiny_clip.noise((8, 8))], "include": [[]], "tag": ["counting"]}
    with pytest.raises(
        ValueError, match=r"of which no commit is written down here: name the one to use as args.revision"
    ):
        geneval(**args)
    with pytest.raises(
        ValueError, match=r"hf download facebook/mask2former-swin-small-coco-instance .* --revision abc"
    ):
        geneval(**args, revision="abc")
    with pytest.raises(ValueError, match=r"set args.clip to it"):
        geneval(**args, path=str(detector))
    with pytest.raises(ValueError, match="scoring='soft': choose published or shaped"):
        geneval(**args, scoring="soft")
    with pytest.raises(ValueError, match=r"both lie in \[0, 1\]"):
        geneval(**args, threshold=30)


def test_a_detector_of_other_objects_is_refused(detector, tmp_path):
    network = Mask2FormerForUniversalSegmentation.from_pretrained(detector)
    network.config.id2label = {index: f"LABEL_{index}" for index in range(80)}
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not find person, bicycle, car"):
        Detector(tmp_path, "cpu")
