"""A filter from a model of one's own (DFN, Fang et al. 2023): trained on a trusted part of a root, it scores all of it.

    curate train-filter --recipe R.toml --root ROOT --name dfn --where "source = 'trusted'"

The recipe names the model, [embed.models.dfn], whose file this command makes. Then it embeds and scores the pool by it.
A command that was killed goes on from its last checkpoint; where the file stands already nothing is trained.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.recipe.config import Recipe, load_recipe
from curation.root_lock import hold_root
from curation.storage import Root
from curation.terminal import write_out
from filters import KIND
from filters._embeddings import EmbeddingFilter
from jobs import embed, score
from jobs.scoring.score_columns import build_filters
from jobs.spark.stage import Stage, check_stages, run_loaded

SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class FilterPlan:
    """What is trained and where: `where` chooses the trusted rows, `changes` are --set of the trainer."""

    name: str
    root: Root
    where: str
    file: Path
    config: str
    changes: tuple[str, ...]
    num_ranks: int

    @property
    def folder(self) -> Path:
        """Of the training run: its log, metrics and checkpoints."""
        return self.file.with_name(f"{self.file.stem}-training")


def run_train_filter(
    recipe_path: str,
    overrides: Sequence[str],
    root: Root,
    *,
    name: str,
    where: str,
    config: str,
    changes: Sequence[str],
    num_ranks: int,
) -> None:
    """Train, embed and score. Raises UserError before any work for whatever is known to be wrong."""
    recipe = load_recipe(recipe_path, overrides)
    file = resolve_file(recipe, name)
    plan = FilterPlan(
        name=name, root=root, where=where, file=file, config=config, changes=tuple(changes), num_ranks=num_ranks
    )
    root.check_format()
    check_rest(recipe, root, name)
    num_trusted = count_trusted(plan)
    if not file.exists():
        write_out(f"{num_trusted:,} trusted pairs train {file.name}.\n")
        train(plan)
    stages = resolve_stages(recipe, name)
    own = resolve_recipe(recipe, name)
    with hold_root(root):
        check_stages(stages, own, root)
        run_loaded(stages, own, root)
    tables = ", ".join(f"scores_{one}" for one in own.filters)
    write_out(f"{file} embeds as [embed.models.{name}], and {tables} has its scores: rules can name them.\n")


def resolve_file(recipe: Recipe, name: str) -> Path:
    """The file that the recipe says is the model `name`. Raises UserError when it says none that can be made."""
    if name not in recipe.embed.models:
        raise UserError(
            f'The recipe has no [embed.models.{name}]: add it with model = "{name}{SUFFIX}", the file that is made.'
        )
    path = recipe.resolve(recipe.embed.models[name].model)
    if "://" in path or not path.endswith(SUFFIX):
        raise UserError(f"embed.models.{name}.model is {path}: name a local file that ends in {SUFFIX}.")
    return Path(path)


def check_rest(recipe: Recipe, root: Root, name: str) -> None:
    """Raise UserError for what is wrong in the recipe beside the model `name`, which may not be there yet."""
    models = {one: item for one, item in recipe.embed.models.items() if one != name}
    others = {one: options for one, options in recipe.filters.items() if options.get("embeddings") != name}
    rest = replace(recipe, embed=replace(recipe.embed, models=models), filters=others)
    embed.check(rest, root)
    score.check(rest, root)


def resolve_recipe(recipe: Recipe, name: str) -> Recipe:
    """`recipe` with the filters that read the model `name`; without one, the CLIP score under the name of the model."""
    readers = {one: options for one, options in recipe.filters.items() if options.get("embeddings") == name}
    chosen = readers or {name: {KIND: "clip_cosine", "embeddings": name}}
    own = replace(recipe, filters=chosen, scores={})
    for one, item in build_filters(own).items():
        if not isinstance(item, EmbeddingFilter):
            raise UserError(f"[filters.{one}] reads no vectors: leave out its embeddings.")
    return own


def resolve_stages(recipe: Recipe, name: str) -> list[Stage]:
    """The stages that embed and score with the model `name` alone."""
    own = resolve_recipe(recipe, name)
    return [
        Stage("embed", partial(embed.check_models, names=(name,)), embed.make_run((name,))),
        Stage("score", lambda _, root: score.check(own, root), score.run, score.run_here),
    ]


def count_trusted(plan: FilterPlan) -> int:
    """Rows with a picture for which `where` holds. Raises UserError when it is no SQL condition or none is left."""
    with Manifest(plan.root) as manifest:
        rows = manifest.query(f"select count(*) from manifest where status = 'ok' and ({plan.where})").fetchall()
    if not rows[0][0]:
        raise UserError(f"No picture of {plan.root.base} fulfils --where {plan.where!r}: choose another condition.")
    return int(rows[0][0])


def train(plan: FilterPlan) -> None:
    """Train in processes of their own and put the weights at their place in one step. Raises UserError."""
    from trainer.launch import has_gpu

    command = list_command(plan)
    write_out(f"$ {shlex.join(command)}\n")
    sys.stdout.flush()
    environment = os.environ | ({} if has_gpu() else {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"})
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    status = subprocess.run(command, env=environment, check=False).returncode
    made = plan.folder / f"model{SUFFIX}"
    if status or not made.exists():
        raise UserError(f"Training ended with status {status}; what it printed above says why.")
    temporary = plan.file.with_name(f".{plan.file.name}")
    shutil.copyfile(made, temporary)
    temporary.replace(plan.file)


def list_command(plan: FilterPlan) -> list[str]:
    """The launch line that a user would type, with a port of its own: the launcher's is one for the whole machine."""
    from trainer.launch import find_free_port

    wanted = [
        f"folder={plan.folder}",
        f"data.root={plan.root.base}",
        "data.table=manifest",
        f"data.where={plan.where}",
        *plan.changes,
    ]
    launcher = str(Path(sys.executable).parent / "deepspeed")
    head = [launcher, "--num_gpus", str(plan.num_ranks), "--master_port", str(find_free_port())]
    head += ["--module", "trainer.train", "--config", plan.config]
    return [*head, *(word for setting in wanted for word in ("--set", setting)), "--resume", "auto"]
