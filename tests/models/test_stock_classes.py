"""Every embedded model and every export is what a tool finds that has never heard of us: the stock class, no arguments.

One fresh process without our packages loads them all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
from models.images.checkpoint import load_image_policy
from models.images.export import export_image_policy
from models.options import ModelOptions
from models.text.checkpoint import load_text_policy
from models.text.export import export_text_policy
from tests.models.pipelines import NAMES, image_options
from tests.models.text.published import PUBLISHED, write_checkpoint
from tests.models.text.test_architecture import all_logits, clean_row, random_ids

EMBEDDED = Path(models.__file__).parent / "tiny"
STOCK = {"dream": "Qwen2", "sdar": "Qwen3", "a2d-qwen3": "Qwen3", "a2d-qwen2": "Qwen2", "a2d-llama": "Llama"}
"""Families whose tensors have transformers' own names. The classes of the others come with their checkpoints."""
HERE = {"attn_implementation": "sdpa", "torch_dtype": "float32"}
"""What runs on a CPU, and rounds no weight, in place of the published flex attention and bfloat16."""
OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class LLaDAConfig(PretrainedConfig):
    model_type = "llada"

class LLaDAModelLM(PreTrainedModel):
    config_class = LLaDAConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = torch.nn.Module()
        self.model.transformer = torch.nn.Module()
        self.model.transformer.wte = torch.nn.Embedding(config.embedding_size, config.d_model)
        self.post_init()
"""
LOAD = """
import json, sys, warnings
import torch, transformers, diffusers
from transformers import AutoTokenizer

asked, answers = json.load(sys.stdin), {}
assert "models" not in sys.modules
for folder in asked["pipelines"]:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    answers[folder] = sum(float(p.abs().sum()) for p in network.parameters())
for folder in asked["tokenizers"]:
    answers[folder + " tokenizer"] = len(AutoTokenizer.from_pretrained(folder))
ids = torch.tensor([asked["ids"]])
mask = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
for folder, name in asked["networks"].items():
    network, said = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), (folder, said)
    with torch.no_grad():
        answers[folder] = network.eval()(input_ids=ids, attention_mask=mask).logits[0].tolist()
for folder in asked["own code"]:
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    answers[folder] = float(network.model.transformer.wte.weight.abs().sum())
json.dump(answers, open(asked["answers"], "w"))
"""


@pytest.mark.processes
def test_the_stock_class_loads_it_in_a_fresh_process(pipelines, tmp_path):
    expected: dict[str, object] = {}
    folders = [EMBEDDED / "digits", EMBEDDED / "scenes"]
    for name in NAMES:
        policy = load_image_policy(image_options(pipelines[name]))
        export_image_policy(policy, tmp_path / name, str(pipelines[name]))
        folders.append(tmp_path / name)
    for folder in folders:
        network = load_image_policy(image_options(folder)).network
        expected[str(folder)] = pytest.approx(
            sum(float(p.detach().abs().sum()) for p in network.parameters()), rel=1e-6
        )

    ids, networks = random_ids(), {}
    for name in STOCK:
        config = PUBLISHED[name].config | HERE
        write_checkpoint(tmp_path / "source" / name, dataclasses.replace(PUBLISHED[name], config=config))
        policy, tokenizer = load_text_policy(ModelOptions(path=str(tmp_path / "source" / name)))
        export_text_policy(policy, tokenizer, tmp_path / name, tmp_path / "source" / name)
        networks[str(tmp_path / name)] = f"{STOCK[name]}ForCausalLM"
    networks[str(EMBEDDED / "block")] = "Qwen3ForCausalLM"
    for folder in networks:
        policy, tokenizer = load_text_policy(ModelOptions(path=folder))
        policy.spec = dataclasses.replace(policy.spec, logit_shift=0)  # the stock class reads a logit where it is
        expected[folder] = pytest.approx(all_logits(policy, clean_row(ids, None)).numpy(), abs=1e-4)

    code = tmp_path / "source" / "llada"
    published = PUBLISHED["llada"]
    names = {"AutoConfig": "modeling_llada.LLaDAConfig", "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"}
    tensors = write_checkpoint(code, dataclasses.replace(published, config=published.config | {"auto_map": names}))
    (code / "modeling_llada.py").write_text(OWN_CODE)
    export_text_policy(*load_text_policy(ModelOptions(path=str(code))), tmp_path / "llada", code)
    expected[str(tmp_path / "llada")] = pytest.approx(
        float(tensors["model.transformer.wte.weight"].abs().sum()), rel=1e-6
    )

    tokenizers = [str(EMBEDDED / "block"), str(EMBEDDED / "full"), *networks, str(tmp_path / "llada")]
    for folder in tokenizers:
        expected[folder + " tokenizer"] = len(load_text_policy(ModelOptions(path=folder))[1])
    asked = {
        "pipelines": [str(folder) for folder in folders],
        "tokenizers": tokenizers,
        "ids": ids.tolist(),
        "networks": networks,
        "own code": [str(tmp_path / "llada")],
        "answers": str(tmp_path / "answers.json"),
    }
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(asked),
        env=clean | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers.keys() == expected.keys()
    for name, value in expected.items():
        found = torch.tensor(answers[name]).numpy() if isinstance(answers[name], list) else answers[name]
        assert found == value, name
