"""SparseTuner in transformers' Trainer: a run that is resumed, or ends with its best model, loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers

from diffpack.errors import CorruptFileError, UsageError
from diffpack.train.tuners.sparse import SparseTuner
from diffpack.train.tuners.state import STATE_FILE, read_state
from diffpack.train.tuners.trainer_callback import trainer_callback
from tests.tools.tiny_net import NetWithLoss, batches, picked

DENSE = ["hidden.bias"]
STEPS = 10
HALF = 5


class Run:
    """A fresh process's part of the recipe: the base, the tuner, its optimiser and the Trainer."""

    def __init__(
        self, folder: Path, dtype: torch.dtype = torch.float32, *, first: int = 1, steps: int = STEPS,
        resume_from: Path | None = None, **arguments: Any,
    ) -> None:  # fmt: skip
        self.model = NetWithLoss().to(dtype)
        self.base = {name: value.clone() for name, value in self.model.state_dict().items()}
        every = {name: where - 1 + first for name, where in picked(self.model).items() if name not in DENSE}
        self.tuner = SparseTuner(self.model, every, DENSE)
        optimiser = self.tuner.attach(torch.optim.AdamW(self.tuner.parameters(), lr=3e-3))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / STEPS)
        data = [{"tokens": row} for row in torch.cat(batches(STEPS))]
        self.trainer = transformers.Trainer(
            self.model,
            transformers.TrainingArguments(
                str(folder), per_device_train_batch_size=3, max_steps=steps, save_steps=HALF, report_to=[],
                use_cpu=True, disable_tqdm=True, remove_unused_columns=False, logging_strategy="no",
                max_grad_norm=0.05, seed=3, label_names=["tokens"], prediction_loss_only=True, **arguments,
            ),
            train_dataset=data, eval_dataset=data[:6], optimizers=(optimiser, schedule),
            data_collator=lambda rows: {"tokens": torch.stack([row["tokens"] for row in rows])},
            callbacks=[trainer_callback(self.tuner, resume_from=resume_from)],
        )  # fmt: skip

    def changed(self) -> int:
        return sum(int((value != self.base[name]).sum()) for name, value in self.model.state_dict().items())


def assert_equal(got: Run, want: Run) -> None:
    """The same weights and, of half precision, the same masters."""
    for name, value in want.model.state_dict().items():
        assert torch.equal(got.model.state_dict()[name], value), name
    for mine, theirs in zip(got.tuner.parameters(), want.tuner.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was not interrupted."""
    run = Run(tmp_path_factory.mktemp("whole"))
    run.trainer.train()
    return run


@pytest.fixture
def folder(whole: Run, tmp_path: Path) -> Path:
    """What it left behind, to spoil."""
    return Path(shutil.copytree(whole.trainer.args.output_dir, tmp_path / "run"))


def test_a_resumed_run_ends_with_the_same_bits(whole, folder):
    resumed = Run(folder)
    resumed.trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{HALF}"))
    assert_equal(resumed, whole)
    assert resumed.changed() == whole.changed() > 50


def test_so_it_does_in_half_precision_and_where_other_positions_were_picked(tmp_path):
    run = Run(tmp_path, torch.bfloat16)
    run.trainer.train()
    resumed = Run(tmp_path, torch.bfloat16, first=2)
    resumed.trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{HALF}"))
    assert_equal(resumed, run)
    assert resumed.changed() == run.changed() > 50


class BrokenOffError(Exception):
    """Stands for a signal."""


class BreakOff(transformers.TrainerCallback):
    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == HALF + 2:
            raise BrokenOffError


def test_a_run_broken_off_goes_on_in_the_same_process(whole, tmp_path):
    """Two steps beyond the checkpoint, which the tuner has trained and the Trainer takes back; it clips as before."""
    run = Run(tmp_path)
    run.trainer.add_callback(BreakOff)
    with pytest.raises(BrokenOffError):
        run.trainer.train()
    run.trainer.remove_callback(BreakOff)
    run.trainer.train(resume_from_checkpoint=True)
    assert_equal(run, whole)
    assert run.trainer.args.max_grad_norm == 0.05


def test_the_file_beside_a_checkpoint_is_the_same_each_time_and_says_all(folder, tmp_path):
    Run(tmp_path / "again", steps=HALF).trainer.train()
    one, two = (run / f"checkpoint-{HALF}" / STATE_FILE for run in (folder, tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()
    state = read_state(one)
    base = NetWithLoss()
    for name, slot in state["slots"].items():
        assert torch.equal(slot["positions"], picked(base)[name])
        assert torch.equal(slot["base"], base.get_parameter(name).detach().view(-1)[slot["positions"]])
        assert not torch.equal(slot["values"], slot["base"])


def test_the_best_model_at_the_end_stays_and_the_tuner_has_its_masters(tmp_path):
    """The highest loss counts as the best here, which is the first checkpoint's."""
    dtype = torch.bfloat16
    run = Run(
        tmp_path, dtype, eval_strategy="steps", eval_steps=HALF, load_best_model_at_end=True,
        metric_for_best_model="loss", greater_is_better=True,
    )  # fmt: skip
    run.trainer.train()
    best = Run(tmp_path / "half", dtype, steps=HALF)
    best.trainer.train()
    assert_equal(run, best)
    run.tuner.write()
    assert_equal(run, best)
    run.tuner.close()


def test_a_checkpoint_elsewhere_is_named(whole, folder, tmp_path):
    shutil.move(folder / f"checkpoint-{HALF}", tmp_path / "kept")
    lost = Run(folder)
    with pytest.raises(
        UsageError, match=r"no sparse_tuner.safetensors in .*checkpoint-5: name the checkpoint's folder"
    ):
        lost.trainer.train(resume_from_checkpoint=str(tmp_path / "kept"))
    resumed = Run(folder, resume_from=tmp_path / "kept")
    resumed.trainer.train(resume_from_checkpoint=str(tmp_path / "kept"))
    assert_equal(resumed, whole)


def test_a_file_that_does_not_fit_the_weights_is_refused(folder):
    half, end = folder / f"checkpoint-{HALF}", folder / f"checkpoint-{STEPS}"
    with pytest.raises(UsageError, match="not of the weights that the Trainer has loaded"):
        Run(folder, resume_from=end).trainer.train(resume_from_checkpoint=str(half))
    (half / STATE_FILE).write_bytes((half / STATE_FILE).read_bytes()[:-9])
    with pytest.raises(CorruptFileError, match="no state of a SparseTuner"):
        Run(folder).trainer.train(resume_from_checkpoint=str(half))
    shutil.copy(end / "model.safetensors", half / STATE_FILE)
    with pytest.raises(CorruptFileError, match="no state of a SparseTuner"):
        Run(folder).trainer.train(resume_from_checkpoint=str(half))
