"""From a folder to a base: what is refused, how clearly, and what a digest covers."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline_lib.errors import InputError, PipelineError, ResourceError, UnreachableError
from pipeline_lib.models.families import FAMILIES
from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny import tiny_wan


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_rules_come_from_the_card(tiny_folder: Path) -> None:
    rules = load_base(str(tiny_folder)).spec.frame_rules
    assert (rules.height, rules.width, rules.num_frames, rules.frames_per_second) == (32, 32, 5, 8.0)
    assert (rules.size_multiple, rules.frame_multiple) == (16, 4)


def test_without_a_card_the_published_defaults_hold(own_folder: Path) -> None:
    (own_folder / CARD_NAME).unlink()
    edit(own_folder / "transformer" / "config.json", text_dim=4096)
    spec = load_base(str(own_folder)).spec
    rules = spec.frame_rules
    assert (rules.height, rules.width, rules.num_frames, rules.frames_per_second) == (480, 832, 81, 16.0)
    assert (spec.guidance_scale, spec.sampling_steps, spec.sigma_shift) == (5.0, 50, 3.0)
    assert spec.negative_prompt


def test_a_base_of_another_size_needs_a_card(own_folder: Path) -> None:
    (own_folder / CARD_NAME).unlink()
    with pytest.raises(InputError, match=r"add mannerism\.json with height, width, num_frames"):
        load_base(str(own_folder))


def test_an_unknown_family_lists_the_known(own_folder: Path) -> None:
    edit(own_folder / "model_index.json", _class_name="AllegroPipeline")
    with pytest.raises(InputError, match="AllegroPipeline") as told:
        load_base(str(own_folder))
    for family in FAMILIES.values():
        assert f"{family.name} ({', '.join(family.pipeline_classes)})" in str(told.value)


@pytest.mark.parametrize("source", ["no such folder", "/nowhere/base", "a/b/c"])
def test_no_folder(source: str) -> None:
    with pytest.raises(InputError, match="no base model"):
        load_base(source)


def test_a_revision_of_a_folder_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="local folder"):
        load_base(str(tiny_folder), revision="main")


@pytest.mark.parametrize("device", ["tpu-ish", "cuda:99"])
def test_devices_that_are_not_there(tiny_folder: Path, device: str) -> None:
    with pytest.raises(InputError, match="no such"):
        load_base(str(tiny_folder), device=device)


def test_a_hub_id_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="mannerism-tests/none is neither"):
        load_base("mannerism-tests/none")


@contextmanager
def hub_that_says(status: int, code: str) -> Iterator[str]:
    """An HTTP server that answers everything as a hub answers what it has not, or when it is ill."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "RepoNotFound", InputError),
        (404, "RevisionNotFound", InputError),
        (403, "GatedRepo", InputError),
        (500, "", UnreachableError),
        (503, "", UnreachableError),
        (429, "", UnreachableError),
    ],
)
def test_trouble_of_the_hub_is_not_the_callers_fault(
    status: int, code: str, kind: type[PipelineError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with hub_that_says(status, code) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        with pytest.raises(PipelineError, match="somebody/tiny") as told:
            load_base("somebody/tiny", revision="v2")
    assert type(told.value) is kind


def test_a_hub_that_is_not_there_is_not_the_callers_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with hub_that_says(200, "") as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    with pytest.raises(UnreachableError, match="somebody/tiny"):
        load_base("somebody/tiny")


def test_a_cache_that_cannot_be_written_is_no_trouble_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told as one: what is raised is what the system raises there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(ResourceError, match="disk full while writing somebody/tiny from the hub") as told:
        load_base("somebody/tiny")
    assert not isinstance(told.value, UnreachableError)


def test_a_hub_id_is_opened_at_its_revision(
    tiny_folder: Path, own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of the hub's own cache, as it is after a download."""
    edit(own_folder / CARD_NAME, num_frames=9)
    kept = tmp_path / "hub" / "models--somebody--tiny"
    for name, commit, folder in (("main", "1" * 40, tiny_folder), ("v2", "2" * 40, own_folder)):
        shutil.copytree(folder, kept / "snapshots" / commit)
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for revision, frames in ((None, 5), ("v2", 9), ("2" * 40, 9)):
        base = load_base("somebody/tiny", revision=revision)
        assert (base.source, base.spec.frame_rules.num_frames) == ("somebody/tiny", frames)
    assert base.digest == load_base(str(own_folder)).digest
    with pytest.raises(InputError, match="somebody/tiny is neither"):
        load_base("somebody/tiny", revision="v3")


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model_index\.json"):
        load_base(str(tmp_path))


@pytest.mark.parametrize("name", ["model_index.json", CARD_NAME, "vae/config.json"])
def test_a_damaged_json_is_named(own_folder: Path, name: str) -> None:
    (own_folder / name).write_text("{ not json")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_base(str(own_folder))


def test_a_wrong_card_is_named(own_folder: Path) -> None:
    edit(own_folder / CARD_NAME, hieght=32)
    with pytest.raises(InputError, match="hieght"):
        load_base(str(own_folder))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "no transformer_2"),
        ("model_index.json", {"boundary_ratio": 0.875}, "no transformer_2"),
        ("model_index.json", {"vae": [None, None]}, "no vae"),
        ("transformer/config.json", {"image_dim": 8}, "image"),
        ("transformer/config.json", {"in_channels": 36}, "image"),
        ("vae/config.json", {"scale_factor_temporal": 1}, "spatial 8, temporal 4"),
    ],
)
def test_variants_and_contradictions_are_refused(
    own_folder: Path, part: str, changes: dict[str, object], message: str
) -> None:
    edit(own_folder / part, **changes)
    with pytest.raises(InputError, match=message):
        load_base(str(own_folder))


def test_a_class_of_another_library_is_not_imported(own_folder: Path) -> None:
    edit(own_folder / "model_index.json", vae=["os", "system"])
    base = load_base(str(own_folder))
    with pytest.raises(InputError, match=r"os\.system"):
        base.decode_video(torch.zeros(1, 16, 1, 4, 4))


def test_missing_weights_are_not_left_random(own_folder: Path) -> None:
    weights = own_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["blocks.1.ffn.net.2.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"blocks\.1\.ffn\.net\.2\.weight"):
        load_base(str(own_folder)).blocks()


def test_truncated_and_missing_weight_files_are_named(own_folder: Path) -> None:
    weights = own_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="transformer cannot be loaded"):
        load_base(str(own_folder)).blocks()
    (own_folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="text_encoder cannot be loaded"):
        load_base(str(own_folder)).encode_text(["a dog"])


def test_the_digest_is_of_contents(tiny_folder: Path, own_folder: Path, tmp_path: Path) -> None:
    first = load_base(str(tiny_folder)).digest
    assert load_base(str(own_folder)).digest == first
    assert load_base(str(tiny_wan(tmp_path / "again"))).digest == first
    assert load_base(str(tiny_wan(tmp_path / "other", seed=1))).digest != first
    weights = own_folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    assert load_base(str(own_folder)).digest != first
    edited = load_base(str(own_folder)).digest
    edit(own_folder / CARD_NAME, num_frames=9)
    assert load_base(str(own_folder)).digest != edited
