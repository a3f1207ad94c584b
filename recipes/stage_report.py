"""What a stage writes down while it runs: metrics of each step, loss on held-out samples, a progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from base_model.stage_trainer import StageTrainer
    from recipes.stage_data import StageData
    from recipes.stages import StageRun


def stage_report(stage_run: StageRun, trainer: StageTrainer, data: StageData) -> Any:
    """A callback of transformers' Trainer."""
    from transformers import TrainerCallback

    from recipes.console import StepBar, say

    stage, run, first = stage_run.stage, stage_run.run, stage_run.first_step
    evaluation = stage_run.config.evaluation

    class Report(TrainerCallback):
        """Writes metrics.jsonl and evaluations.jsonl, moves the bar, and ends an interrupted run with a checkpoint."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.truncate_after(first + state.global_step)
            self.held_out = data.held_out()
            self.bar = StepBar(stage.name, stage.steps, state.global_step)
            self.bar.__enter__()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.rates = {f"lr/{part}": rate for part, rate in trainer.learning_rates().items()}

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.figures = trainer.meter.figures()
            data.note(trainer.samples)
            if stage_run.guard.requested:
                control.should_save = control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            values = {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"]), **self.rates}
            run.append_metrics({"step": first + state.global_step, "stage": stage.name, **values, **self.figures})
            self._evaluate(state.global_step)
            self.bar.update(state.global_step)
            self.bar.line(_line(stage.name, state.global_step, stage.steps, values | self.figures), every_s=10.0)

        def _evaluate(self, step: int) -> None:
            due = step == stage.steps or (evaluation.every and step % evaluation.every == 0)
            if due and self.held_out:
                losses = {f"loss/{name}": trainer.mean_loss(batches) for name, batches in self.held_out.items()}
                run.append_evaluation({"step": first + step, "stage": stage.name, **losses})
                self.bar.line(f"{stage.name} {step}: held-out " + _listed(losses))

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.__exit__(None, None, None)
            for line in data.refused.lines():
                say(line)

    return Report()


def _line(name: str, step: int, steps: int, values: dict[str, Any]) -> str:
    target, packed = values["time/target_tokens_per_s"], values["time/packed_tokens_per_s"]
    return (
        f"{name} {step}/{steps}  loss {values['loss']:.4f}  {values['time/samples_per_s']:.1f} samples/s  "
        f"{target:.0f} target and {packed:.0f} packed tokens/s  {values['time/views_per_s']:.1f} views/s  "
        f"MFU {values.get('time/mfu', 0):.0%}  waiting for data {values['time/data_wait_share']:.0%}"
    )


def _listed(losses: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('loss/')} {loss:.4f}" for name, loss in losses.items())
