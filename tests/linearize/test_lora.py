"""Adapters: the folder PEFT loads, the settings beside it, and what is refused."""

import json

import pytest
import torch
from liger_linearize.config import PROJECTIONS, LigerConfig, LoraConfig
from liger_linearize.errors import LinearizeError
from liger_linearize.lora import add_lora, blend, load_adapter, lora_parameters, save_adapter
from peft import PeftModel
from transformers import AutoModelForCausalLM

from conftest import full_disk, make_model, write_folder

IDS = torch.arange(30).reshape(1, 30) % 23


def adapted_model(lora):
    model = make_model()
    torch.manual_seed(5)
    add_lora(model, lora)
    for p in lora_parameters(model).values():
        p.data.normal_(0, 0.1)
    return model


@pytest.fixture
def adapter(tmp_path):
    lora = LoraConfig(4, 6.0)
    model = adapted_model(lora)
    save_adapter(tmp_path / "adapter", model, lora, LigerConfig("gsa", window=32), torch.float32)
    return tmp_path / "adapter", model


def test_round_trip_with_settings(adapter):
    folder, model = adapter
    loaded = make_model()
    assert load_adapter(folder, loaded) == LigerConfig("gsa", window=32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS, LigerConfig()), model(IDS, LigerConfig()))


def test_peft_merges_to_the_same_weights(adapter, tmp_path):
    folder, model = adapter
    base = AutoModelForCausalLM.from_pretrained(
        write_folder(make_model(), tmp_path / "base"), dtype=torch.float32
    )
    merged = dict(PeftModel.from_pretrained(base, folder).merge_and_unload().named_parameters())
    for layer in ("model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"):
        torch.testing.assert_close(merged[layer + ".weight"], model.get_submodule(layer).merged())


def test_targets_are_exactly_those_asked_for(tmp_path):
    lora = LoraConfig(2, 4.0, ("q_proj", "v_proj"))
    names = lora_parameters(adapted_model(lora))
    assert len(names) == 2 * 2 * 2 and all("q_proj" in n or "v_proj" in n for n in names)


def test_stored_as_float16_readable_by_all(tmp_path):
    lora = LoraConfig()
    save_adapter(tmp_path, adapted_model(lora), lora, LigerConfig())
    assert (tmp_path / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o644
    loaded = make_model()
    load_adapter(tmp_path, loaded)
    values = lora_parameters(loaded).values()
    assert all(torch.equal(p, p.half().float()) for p in values) and len(values) == 2 * 2 * len(
        PROJECTIONS
    )


def test_no_settings_file_means_the_defaults(adapter):
    folder, _ = adapter
    (folder / "liger_config.json").unlink()
    assert load_adapter(folder, make_model()) == LigerConfig("gla", 64, 16.0, 0.5)


def test_rslora_scale(adapter):
    folder, _ = adapter
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_rslora": True}))
    model = make_model()
    load_adapter(folder, model)
    assert model.model.layers[0].self_attn.q_proj.scale == 6.0 / 4**0.5


def test_an_adapter_of_another_base_is_refused(adapter):
    with pytest.raises(LinearizeError, match="another base"):
        load_adapter(adapter[0], make_model(hidden_size=32))
    with pytest.raises(LinearizeError, match="layers.1.* has no place"):
        load_adapter(adapter[0], make_model(num_hidden_layers=1))
    with pytest.raises(LinearizeError, match="is missing"):
        load_adapter(adapter[0], make_model(num_hidden_layers=3))


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("adapter_config.json", "{", "not JSON"),
        (
            "adapter_config.json",
            '{"peft_type": "LORA", "target_modules": ["q_proj"]}',
            "r or lora_alpha",
        ),
        ("adapter_config.json", '{"peft_type": "IA3"}', "IA3"),
        ("adapter_model.safetensors", "no tensors", "adapter_model.safetensors"),
        ("liger_config.json", '{"gate": "mamba"}', "unknown gate 'mamba'"),
        ("liger_config.json", '{"windows": 1}', "unknown field 'windows'"),
    ],
)
def test_damaged_adapters_are_refused_by_name(adapter, file, text, message):
    (adapter[0] / file).write_text(text)
    with pytest.raises(LinearizeError, match=message):
        load_adapter(adapter[0], make_model())


def test_values_beyond_float16_are_refused(tmp_path):
    model = adapted_model(LoraConfig())
    next(iter(lora_parameters(model).values())).data[0, 0] = 1e6
    with pytest.raises(LinearizeError, match="not finite"):
        save_adapter(tmp_path, model, LoraConfig(), LigerConfig())


@pytest.mark.parametrize("name", ["adapter_config.json", "liger_config.json"])
def test_a_full_disk_leaves_the_settings_that_were_there(adapter, name):
    folder, model = adapter
    before = (folder / name).read_bytes()
    (folder / (name + ".partial")).symlink_to("/dev/full")
    with pytest.raises(LinearizeError, match=f"{name}: cannot save: No space left on device"):
        save_adapter(folder, model, LoraConfig(4, 8.0), LigerConfig("hgrn2"))
    assert (folder / name).read_bytes() == before


def test_a_full_disk_leaves_the_weights_that_were_there(adapter):
    folder, model = adapter
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with full_disk(1000), pytest.raises(LinearizeError, match="adapter_model.safetensors: cannot"):
        save_adapter(folder, model, LoraConfig(4, 8.0), LigerConfig())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def updates(model):
    return {
        n: m.scale * (m.lora_B @ m.lora_A).detach()
        for n, m in model.named_modules()
        if getattr(m, "lora_A", None) is not None
    }


def test_a_blend_is_the_mean_of_the_updates_where_its_ranks_hold_it(tmp_path):
    parts = []
    for name, lora in (
        ("a", LoraConfig(2, 3.0)),
        ("b", LoraConfig(3, 6.0, rank_pattern={"v_proj": 1})),
    ):
        model = adapted_model(lora)
        save_adapter(tmp_path / name, model, lora, LigerConfig("gsa"), torch.float32)
        parts.append(updates(model))
    lora = LoraConfig(5, 10.0, rank_pattern={"q_proj": 1})
    model = make_model()
    add_lora(model, lora)
    assert blend([tmp_path / "a", tmp_path / "b"], [0.25, 0.75], model, lora).gate == "gsa"
    for name, got in updates(model).items():
        want = 0.25 * parts[0][name] + 0.75 * parts[1][name]
        if name.endswith("q_proj"):
            want = torch.linalg.svd(want)
            want = want.U[:, :1] * want.S[:1] @ want.Vh[:1]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_adapters_of_other_gates_do_not_blend(tmp_path):
    lora = LoraConfig(2, 4.0)
    for name, gate in (("a", "gla"), ("b", "gsa")):
        save_adapter(tmp_path / name, adapted_model(lora), lora, LigerConfig(gate))
    model = make_model()
    add_lora(model, lora)
    with pytest.raises(LinearizeError, match="b: its liger_config.json is not .*a's"):
        blend([tmp_path / "a", tmp_path / "b"], [0.5, 0.5], model, lora)


def test_adapters_of_another_base_do_not_blend(tmp_path):
    lora = LoraConfig(2, 4.0)
    save_adapter(tmp_path / "a", adapted_model(lora), lora, LigerConfig())
    for changes, message in (
        ({"hidden_size": 32}, "another base"),
        ({"num_hidden_layers": 1}, "is missing"),
        ({"num_hidden_layers": 3}, "has no place"),
    ):
        other = make_model(**changes)
        add_lora(other, lora)
        save_adapter(tmp_path / "b", other, lora, LigerConfig())
        model = make_model()
        add_lora(model, lora)
        with pytest.raises(LinearizeError, match=f"b/adapter_model.safetensors: .*{message}"):
            blend([tmp_path / "a", tmp_path / "b"], [0.5, 0.5], model, lora)


def test_ranks_by_projection_load_here_and_in_peft(tmp_path):
    lora = LoraConfig(4, 6.0, rank_pattern={"k_proj": 2, "down_proj": 7})
    model = adapted_model(lora)
    save_adapter(tmp_path / "adapter", model, lora, LigerConfig(), torch.float32)
    loaded = make_model()
    load_adapter(tmp_path / "adapter", loaded)
    for name, want in updates(model).items():
        torch.testing.assert_close(updates(loaded)[name], want)
    base = AutoModelForCausalLM.from_pretrained(
        write_folder(make_model(), tmp_path / "base"), dtype=torch.float32
    )
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    for name, weight in merged.named_parameters():
        if name.removesuffix(".weight") in updates(model):
            layer = model.get_submodule(name.removesuffix(".weight"))
            torch.testing.assert_close(weight, layer.merged())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rank_pattern": {"q_proj": "2"}}, "LoRA rank '2'"),
        ({"rank_pattern": {"lm_head": 2}}, "'lm_head', which is no LoRA target"),
        ({"rank_pattern": {"q_proj": 2}}, "alpha / r is not the same"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha / r is not the same"),
    ],
)
def test_patterns_that_are_not_supported_are_refused(adapter, change, message):
    path = adapter[0] / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LinearizeError, match=message):
        load_adapter(adapter[0], make_model())
