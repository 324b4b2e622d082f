"""`--lora` and `--start-lora`: mistakes are one line before anything starts; `generate` puts on what a run had on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline_lib.models.load import load_base
from pipeline_lib.records import LoraFact
from pipeline_lib.storage.tensors import save_tensors
from tests.cli.test_bad_input import check_refused, command, state
from tests.cli.test_concept_commands import concept
from tests.models.test_lora_use import lora_file
from tests.steps.tiny import small_clip

__all__ = ["concept", "state"]


@pytest.mark.parametrize("flag", ["--lora", "--start-lora"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.safetensors:0.5", "there is no LoRA file at"),
        ("old.pt", "old.pt is a pickle"),
        ("folder", "folder is a folder, not a LoRA file; name the .safetensors file in it"),
        ("text.safetensors", "text.safetensors cannot be read as safetensors"),
        ("other.safetensors", "as in hunyuan or flux"),
        ("patch.safetensors", "changes more than linear layers of the blocks; got diffusion_model.patch_embedding"),
        ("high=patch.safetensors", "has one denoiser; leave `high=` out"),
    ],
)
def test_a_file_that_is_no_use_is_refused(
    state: Path, tiny_folder: Path, tmp_path: Path, flag: str, name: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.pt").write_bytes(b"\x80")
    (tmp_path / "text.safetensors").write_text("hello")
    for file, layer in (("other", "double_blocks.0.img_attn_qkv"), ("patch", "patch_embedding")):
        pair = {"lora_down.weight": torch.ones(2, 24), "lora_up.weight": torch.ones(24, 2)}
        named = {f"diffusion_model.{layer}.{end}": value for end, value in pair.items()}
        save_tensors(tmp_path / f"{file}.safetensors", named)
    clip = small_clip(tmp_path / "clip.mp4")
    ended = command("run", str(clip), "--subject", "dog", "--base", str(tiny_folder), flag, name)
    check_refused(ended, state, said)


def test_generate_takes_a_lora_and_misses_one(state: Path, concept: Path, tiny_folder: Path, tmp_path: Path) -> None:
    style = lora_file(load_base(str(tiny_folder)), tmp_path / "style.safetensors")
    plain = command("generate", str(concept), "a {subject}", "--json")
    styled = command("generate", str(concept), "a {subject}", "--lora", f"{style}:2", "--json")
    assert (plain.code, styled.code) == (0, 0), plain.errors + styled.errors
    first, second = (Path(json.loads(ended.output)["files"][0]).read_bytes() for ended in (plain, styled))
    assert first != second
    record = json.loads((concept / "concept.json").read_text())
    record["loras"] = [LoraFact(name="style.safetensors", digest="0", strength=2).model_dump()]
    (concept / "concept.json").write_text(json.dumps(record))
    words = "trained with style.safetensors (strength 2) on the base"
    missed = command("generate", str(concept), "a {subject}", "--json")
    assert words in " ".join(missed.errors.split()) and "--lora FILE:STRENGTH" in missed.errors
    exported = command("export", str(concept), "--out", str(tmp_path / "x.safetensors"))
    assert words in " ".join(exported.errors.split())


def test_loras_tells_what_files_are_and_whether_they_fit(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    ours, other = lora_file(load_base(str(tiny_folder)), tmp_path / "ours.safetensors"), tmp_path / "other.safetensors"
    pair = {"lora_A.weight": torch.ones(2, 24), "lora_B.weight": torch.ones(24, 2)}
    save_tensors(other, {f"diffusion_model.double_blocks.0.img_attn_qkv.{end}": value for end, value in pair.items()})
    ended = command("loras", str(ours), str(other), "--base", str(tiny_folder), "--json")
    assert ended.code == 0, ended.errors
    first, second = json.loads(ended.output)["loras"]
    assert (first["file"], first["family"], first["fits"], first["why_not"]) == (str(ours), "wan", True, "")
    assert (second["ranks"], second["fits"]) == ([2], False)
    assert "as in hunyuan or flux" in second["why_not"]
    told = command("loras", str(ours), "--base", str(tiny_folder)).output
    assert "family           wan" in told and told.splitlines()[-1].endswith(" yes")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["old.pt"], "old.pt is a pickle"),
        (["missing.safetensors"], "there is no LoRA file at"),
        (["{file}", "--base", "org/name"], "org/name is a hub id; fetch it, then give its folder"),
    ],
)
def test_loras_refuses_in_one_line(
    state: Path, tiny_folder: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    file = lora_file(load_base(str(tiny_folder)), tmp_path / "x.safetensors")
    check_refused(command("loras", *(text.format(file=file) for text in arguments)), state, said)
