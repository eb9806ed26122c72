"""The model card of a checkpoint: README.md of its repository on the hub, made from its manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from implicit_tuning.analysis.statistics import WinRate
from implicit_tuning.commands.publish.licences import FREE, Ingredient, inherited_licence
from implicit_tuning.models.chat import ChatFormat, prompt_text
from implicit_tuning.nodes.code import SCRIPTS

TEMPLATE = SCRIPTS.parent / "report" / "model_card.md.jinja"
WAYS = {
    "instruction": "finetuned on instructions and responses (instruction tuning).",
    "response": "finetuned on responses alone, without their instructions (response tuning).",
    "random": "finetuned on responses, each under another one's instruction.",
    "single_task": "finetuned on one narrow task alone.",
}
NEVER_PAIRED = (
    "It never saw which instruction a response belongs to; what it follows, it follows by what it "
    "learned before."
)
UNSEEN = {
    "instruction": "It follows what its training data shows, in the language of that data.",
    "response": NEVER_PAIRED,
    "random": NEVER_PAIRED,
    "single_task": "It was shown one task alone, and may answer anything else in that task's style.",
}
LIMITS = (
    "Made for research: no training for safety, no filter, and no test of either.",
    "Win rates are of one judge on one evaluation set, decoded greedily: others give other numbers.",
)


@dataclass(frozen=True)
class Result:
    """A comparison that was judged.

    Attributes:
        judge: its name in the config; `judge_id` says which model or rule that is.
        against: the reference run's adaptation.
        evaluation: name of the evaluation set; `dataset` is its repository on the hub, if any.
        n_failed: pairs without a verdict, which the rate leaves out.
    """

    judge: str
    judge_id: str
    against: str
    evaluation: str
    dataset: str | None
    rate: WinRate
    n_failed: int


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        repo: owner/name.
        run: base/adaptation/seed, of `experiment`, whose `label` says what kind of result it is.
        way: how it was finetuned, a key of WAYS.
        is_reference: others are compared with it.
        manifest: of the finetune.
        epochs: of its training, also where they were selected.
        generation: settings of the run's own answers.
        notes: remarks of the config on the adaptation and the data.
        languages: of the training data, as ISO 639 codes.
        eos: the token that ends an answer.
    """

    repo: str
    run: str
    experiment: str
    label: str
    way: str
    is_reference: bool
    manifest: Mapping
    ingredients: Sequence[Ingredient]
    results: Sequence[Result]
    epochs: int
    generation: Mapping
    notes: Sequence[str]
    languages: Sequence[str]
    eos: str


def render_card(subject: Subject) -> str:
    """The card, with its metadata in front as YAML."""
    manifest, licence = subject.manifest, inherited_licence(subject.ingredients)
    card = ModelCard.from_template(
        _metadata(subject, licence),
        template_path=str(TEMPLATE),
        name=subject.run,
        repo=subject.repo,
        experiment=subject.experiment,
        label=subject.label,
        summary=f"`{subject.run.split('/')[0]}`, {WAYS[subject.way]}",
        eos=subject.eos,
        generation=subject.generation,
        prompt=prompt_text("{instruction}", ChatFormat(**manifest["settings"]["chat"])),
        ingredients=subject.ingredients,
        licence=licence,
        settings=_settings(manifest, subject.epochs),
        loss=manifest["facts"]["final_loss"],
        results=subject.results,
        no_results=_no_results(subject.is_reference),
        limits=(UNSEEN[subject.way], *LIMITS, *subject.notes),
        manifest=manifest,
    )
    return str(card)


def _metadata(subject: Subject, licence: str) -> ModelCardData:
    on_hub = {item.what: item.hub for item in subject.ingredients if item.hub is not None}
    return ModelCardData(
        license=FREE[licence].hub,
        base_model=on_hub.get("base"),
        datasets=[on_hub["training data"]] if "training data" in on_hub else None,
        language=list(subject.languages) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["implicit-instruction-tuning", subject.way.replace("_", "-"), "arxiv:2409.14254"],
        model_name=subject.repo.partition("/")[2],
        eval_results=[_eval_result(result) for result in subject.results] or None,
    )


def _eval_result(result: Result) -> EvalResult:
    rate = result.rate
    return EvalResult(
        task_type="text-generation",
        dataset_type=result.dataset or result.evaluation,
        dataset_name=result.evaluation,
        metric_type="win_rate",
        metric_name=f"win rate (%) against {result.against} under {result.judge}, 95 % interval "
        f"{rate.low:.1f} to {rate.high:.1f}, {rate.n} pairs",
        metric_value=round(rate.win_rate, 2),
    )


def _settings(manifest: Mapping, epochs: int) -> list[tuple[str, object]]:
    """What decided the checkpoint, as rows of a table."""
    facts, settings = manifest["facts"], manifest["settings"]
    training = {**settings["training"], "epochs": epochs}
    counted = ("examples", "updates", "tokens", "truncated", "lost_eos")
    return [
        *((name, "none" if v is None else v) for name, v in sorted(training.items())),
        ("seed", settings["seed"]),
        *((name.replace("_", " "), facts[name]) for name in counted),
    ]


def _no_results(is_reference: bool) -> str:
    if is_reference:
        return "It is the reference that the other runs of its seed are compared with."
    return "It has not been judged."
