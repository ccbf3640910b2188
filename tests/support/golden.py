"""Where golden cases are, and a small model made of one."""

import json
import os
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[2]


def golden(case):
    """The folder of a case."""
    places = (os.environ.get("HADAL_GOLDEN"), ROOT / "../shared/golden", ROOT / "tests/golden")
    return next(pathlib.Path(p) / case for p in places if p and (pathlib.Path(p) / case / "expected.json").exists())


def make_byte_model(folder, positions=None):
    """Random weights and a token for each byte; positions: another context than the case's."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    config = json.loads((golden("v3-mtp") / "config.json").read_text())
    if positions:
        config["max_position_embeddings"] = positions
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(golden("v3-mtp") / "model.safetensors", folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "tests/support/byte_tokenizer" / name, folder)
