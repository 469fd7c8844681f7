"""Settings: one definition, presets, files, flags; and the plan they end in."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.config import (
    GROUPS,
    PRESETS,
    RENAMED_SETTINGS,
    RenamedWarning,
    Settings,
    current_flags,
    require_plausible,
    resolve,
    validate,
)
from cryogan.critics import Stage
from cryogan.errors import InputError
from cryogan.particles import write_star
from cryogan.run.build import build_simulator
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan


def usual(box: int, steps: int) -> Stage:
    return Stage(box, steps, "convolutional")


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_resolve_to_what_they_say(preset: str) -> None:
    settings = resolve(preset, None, {})
    for name, value in PRESETS[preset].items():
        assert getattr(settings, name) == value


def test_the_users_two_presets_are_there() -> None:
    assert {"default", "paper"} <= PRESETS.keys()
    assert resolve("default", None, {}) != resolve("paper", None, {})


def test_preset_under_file_under_flags(tmp_path: Path) -> None:
    preset = resolve("paper", None, {})
    file = write(tmp_path, f"batch_size = {preset.batch_size + 1}\ncritic_width = {preset.critic_width + 1}\n")
    settings = resolve("paper", file, {"critic_width": preset.critic_width + 2})
    assert settings.envelope_at_nyquist == preset.envelope_at_nyquist
    assert settings.batch_size == preset.batch_size + 1
    assert settings.critic_width == preset.critic_width + 2


def test_settings_are_read_at_top_level_or_under_settings(tmp_path: Path) -> None:
    top = resolve("default", write(tmp_path, "seed = 7\n"), {})
    under = resolve("default", write(tmp_path, 'command = "x"\n[settings]\nseed = 7\n[plan]\nbox = 64\n'), {})
    assert top == under
    assert top.seed == 7


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("batchsize", "batch_size"),
        ("simmetry", "symmetry"),
        ("critic-steps", "critic_steps"),
        ("max_shfit", "max_shift"),
    ],
)
def test_an_unknown_setting_is_named_with_a_suggestion(name: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        resolve("default", write(tmp_path, f"{name} = 3\n"), {})
    message = str(raised.value)
    assert "settings.toml" in message
    assert f"unknown setting {name!r}" in message
    assert f"did you mean {meant}?" in message
    assert "\n" not in message


def test_a_setting_like_no_other_gets_the_list() -> None:
    with pytest.raises(InputError, match=r"unknown setting 'qqqq'; there are: .*symmetry"):
        validate({"qqqq": 1}, "")


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"Unknown preset 'papr'; did you mean paper\?"):
        resolve("papr", None, {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("batch_size = 0", "batch_size"),
        ('batch_size = "many"', "batch_size"),
        ("oversampling = 1.3", "oversampling"),
        ("oversampling = 3.0", "oversampling"),
        ("box = 8", "box"),
        ("envelope_at_nyquist = 0.0", "envelope_at_nyquist"),
        ("final_rate = 1.5", "final_rate"),
        ("seed = -1", "seed"),
        ('noise_model = "pink"', "noise_model"),
        ("clip_depth = 2.0", "clip_depth"),
        ("invert = [1]", "invert"),
    ],
)
def test_a_bad_value_is_one_sentence(text: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        resolve("default", write(tmp_path, text), {})
    message = str(raised.value)
    assert f"setting {name} = " in message
    assert "settings.toml" in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize("oversampling", [1.0, 1.5, 2.0])
def test_oversampling_has_three_values(oversampling: float) -> None:
    assert validate({"oversampling": oversampling}, "").oversampling == oversampling


@pytest.mark.parametrize("text", ["seed = ", "seed = 1\nseed = 2\n", "\x00"])
def test_a_file_that_is_not_toml_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read the settings in .*settings\.toml"):
        resolve("default", write(tmp_path, text), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the settings"):
        resolve("default", tmp_path / "none.toml", {})


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.model_validate({}).seed = 3


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("with_noise", [True, False])
def test_run_toml_round_trip(with_noise: bool, particles: Path, tmp_path: Path) -> None:
    settings = resolve("default", None, {"seed": 11, "symmetry": "D2", "max_shift": 4.0, "batch_size": 8})
    noise = particles / "noise.star" if with_noise else None
    plan, *_ = read_inputs(particles / "particles.star", noise, None, settings)
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    record = tomllib.loads((tmp_path / "run.toml").read_text())
    assert set(record["settings"]) <= set(Settings.model_fields)
    assert record["settings"]["seed"] == 11
    assert {"cryogan", "torch", "numpy", "python"} <= record["versions"].keys()
    assert record["settings"]["device"] == "cpu"
    # A run's record is itself a file of settings.
    assert resolve("default", tmp_path / "run.toml", {}) == settings


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the folder of a run"):
        Plan.read(tmp_path)
    (tmp_path / "run.toml").write_text("[settings]\n")
    with pytest.raises(InputError, match="is not the folder of a run"):
        Plan.read(tmp_path)


def test_stages_grow_to_the_working_box(particles: Path) -> None:
    chosen = {"critic": "wasserstein", "steps": 5, "batch_size": 8, "coarse_steps": 3, "starts": 3}
    plan, images, *_ = read_inputs(particles / "particles.star", None, None, resolve("default", None, chosen))
    assert plan.box == images.box == 32
    assert plan.stages == (usual(24, 3), usual(24, 3), usual(24, 3), usual(32, 5))
    assert plan.total_steps == 14
    assert [plan.cost.work(step) for step in (0, 14)] == [0, 1]
    assert plan.cost.work(9) == pytest.approx(9 * 24**2 / (9 * 24**2 + 5 * 32**2))
    small, images, *_ = read_inputs(
        particles / "particles.star", None, None, resolve("default", None, chosen | {"box": 16, "starts": 1})
    )
    assert small.stages == (usual(16, 5),)
    assert small.box == images.box == 16
    assert small.pixel_size == pytest.approx(8.0)


def test_stages_of_the_users_choice(particles: Path, tmp_path: Path) -> None:
    file = write(tmp_path, 'critic = "wasserstein"\nstarts = 2\nstages = "16:4, 24:3,32:5"\n')
    plan = read_inputs(particles / "particles.star", None, None, resolve("default", file, {"batch_size": 8})).plan
    assert plan.stages == (usual(16, 4), usual(16, 4), usual(24, 3), usual(32, 5))
    chosen = resolve("paper", None, {"stages": "16:4,24:3", "batch_size": 8})
    plan, images, *_ = read_inputs(particles / "particles.star", None, None, chosen)
    assert plan.stages == (usual(16, 4), usual(24, 3))
    assert plan.box == images.box == 24
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan


@pytest.mark.parametrize(
    "text", ["", "24", "24:0", "24:800,", "25:800", "8:10", "24:8:3", "32:5,24:5", "24:5,24:5", "-24:5"]
)
def test_stages_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"setting stages = .*(is not an even box from 16 on|must grow)"):
        resolve("default", None, {"critic": "wasserstein", "stages": text})


def test_stages_and_what_they_replace_are_refused(particles: Path, tmp_path: Path) -> None:
    file = write(tmp_path, 'critic = "wasserstein"\nstages = "16:4,32:5"\nsteps = 7\n')
    resolve("default", file, {})  # as in a run's record, which has all settings
    for flag in ("steps", "coarse_steps", "epochs", "coarse_to_fine"):
        with pytest.raises(InputError, match=f"leave out --{flag.replace('_', '-')}"):
            resolve("default", file, {flag: 1})
    refused = {
        "box is 48": {"critic": "wasserstein", "box": 48},
        "needs --critic wasserstein": {"critic": "matching"},
        "--stages and --stable-epochs": {"critic": "wasserstein", "stable_epochs": 1.0},
    }
    for sentence, values in refused.items():
        with pytest.raises(InputError, match=sentence):
            read_inputs(particles / "particles.star", None, None, resolve("default", file, values))


def test_a_prior_on_the_views_is_read_at_the_start(particles: Path, tmp_path: Path) -> None:
    star = particles / "particles.star"
    with pytest.raises(InputError, match=r"none\.star: cannot be read"):
        read_inputs(star, None, None, resolve("default", None, {"pose_prior": tmp_path / "none.star"}))
    write_star(tmp_path / "views.star", {"views": {"rlnAngleRot": [20.0], "rlnAngleTilt": [90.0]}})
    for critic, output in {"matching": "turned into the map's frame", "wasserstein": "in whose frame the map"}.items():
        chosen = resolve(
            "default", None, {"pose_prior": str(tmp_path / "views.star"), "critic": critic, "symmetry": "C2"}
        )
        plan, _, remarks, _ = read_inputs(star, None, None, chosen)
        assert any(remark.code == "pose-prior" and output in remark.sentence for remark in remarks)
        plan.write(tmp_path)
        assert Plan.read(tmp_path) == plan
        _, simulator = build_simulator(plan, 16, star, 1, 0)
        drawn = simulator.sample(2000).rotations[:, :, 2]
        near = [
            float((drawn @ torch.tensor([np.cos(a), np.sin(a), 0.0]).float() > 0.9).float().mean())
            for a in (0.35, 3.49)
        ]
        # The map of the Wasserstein critic is in the prior's frame, where C2 makes two directions equal.
        assert near == pytest.approx([0.5, 0.5] if critic == "wasserstein" else [0.05, 0.05], abs=0.05)


def test_an_epoch_is_a_pass_of_the_critic(particles: Path) -> None:
    chosen = {"steps": 0, "epochs": 3.0, "batch_size": 4, "critic_steps": 2, "coarse_to_fine": False}
    chosen |= {"critic": "wasserstein", "starts": 1}
    plan, images, *_ = read_inputs(particles / "particles.star", None, None, resolve("default", None, chosen))
    assert plan.stages == (usual(32, round(3 * (len(images) // 2) / 8)),)


def test_the_matching_critic_searches_from_zero_then_marches(particles: Path) -> None:
    chosen = {"starts": 3, "search_steps": 7, "marching_steps": 2}
    plan, *_ = read_inputs(particles / "particles.star", None, None, resolve("default", None, chosen))
    # Cut-offs 11.25, 14.1 and 16 of 16 shells, then two more at 16.
    assert plan.stages == (*[Stage(32, 7, "search")] * 3, Stage(32, 5, "sharpening"))
    assert [plan.cost.work(step) for step in (0, 26)] == [0, 1]
    done = [plan.cost.work(step) for step in range(27)]
    assert done == sorted(done)


def test_poisson_noise_and_its_dose_need_each_other(particles: Path) -> None:
    star, patches = particles / "particles.star", particles / "noise.star"
    for flags in ({"noise_model": "poisson"}, {"dose": 20.0}):
        with pytest.raises(InputError, match="--noise-model poisson and --dose need each other"):
            read_inputs(star, None, None, resolve("default", None, flags))
    both = resolve("default", None, {"noise_model": "poisson", "dose": 20.0})
    with pytest.raises(InputError, match="not both"):
        read_inputs(star, patches, None, both)
    plan, *_ = read_inputs(star, None, None, both.model_copy(update={"box": 16}))
    _, simulator = build_simulator(plan, plan.box, star, 1, 0)
    drawn = simulator.noise.sample(torch.zeros(100, dtype=torch.int64), simulator.generator)
    electrons = 20.0 * 8.0**2  # a pixel, at the working box
    counts = drawn * electrons**0.5 + electrons
    torch.testing.assert_close(counts, counts.round(), atol=1e-2, rtol=0)


def test_every_setting_is_in_one_group() -> None:
    grouped = [name for group in GROUPS.values() for name in group.model_fields]
    assert grouped == list(Settings.model_fields)
    assert len(set(grouped)) == len(grouped)


def test_old_names_in_a_file_are_taken_with_a_remark(tmp_path: Path) -> None:
    file = write(tmp_path, 'critic = "views"\nviews = 700\nsharpen_steps = 2\nsharpen_images = 60\n')
    with pytest.warns(RenamedWarning) as told:
        settings = resolve("paper", file, {"learn_scales": False})
    (one,) = told
    assert str(one.message) == (
        f"{file}: critic = views is now critic = matching; views is now orientations; sharpen_steps is now "
        "marching_steps; sharpen_images is now marching_images."
    )
    assert (settings.critic, settings.orientations) == ("matching", 700)
    assert (settings.marching_steps, settings.marching_images) == (2, 60)
    with pytest.warns(RenamedWarning, match="critic = convolutional is now critic = wasserstein"):
        assert Settings(critic="convolutional").critic == "wasserstein"


def test_an_old_and_a_new_name_together_are_refused() -> None:
    with pytest.raises(InputError, match="views and orientations are the same setting; leave out views"):
        validate({"views": 300, "orientations": 400}, "")


def test_old_names_do_not_hide_new_settings() -> None:
    assert not set(RENAMED_SETTINGS) & set(Settings.model_fields)
    assert set(RENAMED_SETTINGS.values()) <= set(Settings.model_fields)


def test_old_flags_are_those_of_today() -> None:
    typed = ["reconstruct", "a.star", "--critic", "views", "--views=300", "--sharpen-steps", "2", "--out", "views"]
    flags, remarks = current_flags(typed)
    assert flags == [
        *("reconstruct", "a.star", "--critic", "matching", "--orientations=300", "--marching-steps", "2"),
        *("--out", "views"),
    ]
    assert remarks == [
        "--critic views is now --critic matching.",
        "--views is now --orientations.",
        "--sharpen-steps is now --marching-steps.",
    ]
    assert current_flags(["--critic=convolutional"])[0] == ["--critic=wasserstein"]
    assert current_flags(flags) == (flags, [])


def test_a_critic_and_a_noise_model_of_ones_own() -> None:
    settings = validate({"critic": "mine.critics:Mine", "noise_model": "mine:Noise", "dose": 3.0}, "")
    assert (settings.critic, settings.noise_model) == ("mine.critics:Mine", "mine:Noise")
    for name in ("mine", "mine:", ":Mine", "a b:c", "mine:Mine.Other"):
        with pytest.raises(InputError, match=r"setting critic = .*matching, wasserstein, or give your own"):
            validate({"critic": name}, "")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"focal_length": 2.0}, "needs both --aperture-diameter and --focal-length"),
        ({"learn_scales": True}, "--learn-scales needs --critic wasserstein"),
        ({"stages": "16:3"}, "--stages needs --critic wasserstein"),
        ({"smoothing": 2.0}, "--smoothing needs --critic wasserstein"),
        ({"critic": "wasserstein", "learn_poses": True}, "--learn-poses needs --critic matching"),
        ({"critic": "wasserstein", "classes": 2}, "--classes needs --critic matching"),
        ({"critic": "wasserstein", "free_beyond": 20.0}, "--free-beyond needs --stable-epochs"),
        ({"particles_per_um2": 9.0, "classes": 2}, "--classes needs picked particles"),
        ({"dose": 20.0}, "--noise-model poisson and --dose need each other"),
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as raised:
        Settings(**values)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=sentence):
        Settings().model_copy(update=values)


def test_a_flag_is_checked_together_with_its_preset() -> None:
    assert resolve("paper", None, {"classes": 1, "smoothing": 3.0}).smoothing == 3.0
    with pytest.raises(InputError, match="--classes needs --critic matching"):
        resolve("paper", None, {"classes": 2})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mask_diameter": 500.0}, "--mask-diameter 500 A is not possible in a box of 245 A: give 31 to 245 A."),
        ({"max_shift": 500.0}, "--max-shift 500 A is not possible in a box of 245 A: give 0 to 122 A."),
        ({"particle_diameter": 10.0}, "--particle-diameter 10 A is not possible in a box of 245 A: give 31 to 245 A."),
        ({"particle_diameter": 300.0}, "--particle-diameter 300 A is not possible"),
        ({"critic": "wasserstein", "smoothing": 60.0}, "--smoothing 60 A is not possible"),
    ],
)
def test_lengths_that_cannot_be_are_refused_with_the_range(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        require_plausible(Settings(**values), 244.6, 3.822)
    assert str(raised.value).startswith(sentence)


def test_lengths_that_can_be() -> None:
    for preset in PRESETS:
        require_plausible(resolve(preset, None, {}), 244.6, 3.822)
    require_plausible(Settings(particle_diameter=244.6, mask_diameter=40.0, max_shift=100.0), 244.6, 3.822)
