"""The command `replisome`. It parses, hands over, and turns every ending into one sentence and an exit code.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from engine import __version__, errors
from jobs import _spec

if TYPE_CHECKING:
    from engine.runtime.run import PlanLine, RunContext, RunOutcome
    from engine.runtime.verify import Verification

EXIT_PIPE = 141
RESUME = "finished shards are kept: run the same command again to go on from there"


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as an interrupt so that whatever cleans up on Ctrl-C does so here too."""


class _StdoutClosed(Exception):
    """Whoever read our standard output has gone."""


class _Verbs(TyperGroup):
    """Commands of this file, and one for each job, built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*(name.replace("_", "-") for name in _spec.job_names()), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        job = cmd_name.replace("-", "_")
        if job in _spec.job_names():
            return _summary_only(job) if ctx.params.get("summaries") else _verb(job)
        found = super().get_command(ctx, cmd_name)
        if found is None:
            from schemas._base import nearest

            ctx.fail(f"no command {cmd_name!r}; {nearest(cmd_name, self.list_commands(ctx))}")
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands needs one line of each job, not its options: those would cost an import."""
        ctx.params["summaries"] = True
        super().format_commands(ctx, formatter)


class _Models(TyperGroup):
    """`models [NAME]` shows models; `models import ...` is a command of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next((word for word in args if not word.startswith("-")), "")
        if first in self.commands:
            # An empty NAME, so that the command's name is not taken for a model's.
            at = args.index(first)
            return super().parse_args(ctx, [*args[:at], "", *args[at:]])
        ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="replisome",
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

Debug = Annotated[bool, typer.Option("--debug", help="show full traces")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text")]
SpecFile = Annotated[str, typer.Argument(metavar="SPEC.yaml", help="spec file; `replisome schema JOB` lists its keys")]
Settings = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="set a key of the spec; repeatable")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to run on; sets the ray executor")]
Force = Annotated[bool, typer.Option("--force", help="do anew what is there; the former manifest is kept")]
ProgressMode = Annotated[str, typer.Option("--progress", help="auto, bar, plain, json or none")]


@app.callback()
def _root() -> None:
    """Score genomes with deep models, every record exactly once. Research use only; not a medical device."""


def _summary_only(job: str) -> Any:
    return _command(job, lambda: None)


def _verb(job: str) -> Any:
    from jobs._verbs import job_command

    def body(typed: dict[str, Any]) -> None:
        def work() -> int:
            source = _spec.apply_settings(_spec.from_options(job, typed), typed["set"])
            if typed["plan"]:
                return _print_plan(source, as_json=typed["json"], job=job)
            return _run_job(source, progress=typed["progress"], force=typed["force"], debug=typed["debug"], job=job)

        _finish(work, debug=typed["debug"])

    return _command(job, job_command(job, body))


def _command(job: str, function: Callable[..., Any]) -> Any:
    single = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=app.info.context_settings)
    single.command(name=job.replace("_", "-"), help=_spec.job_summary(job))(function)
    return typer.main.get_command(single)


@app.command("run")
def run_spec(
    spec: SpecFile,
    *,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    address: Address = None,
    progress: ProgressMode = "auto",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Run the job of a spec file; run it again to resume."""
    extra = ["execution.executor=ray", f"execution.address={json.dumps(address)}"] if address else []

    def work() -> int:
        source = _spec.apply_settings(_spec.read_file(spec), [*settings, *extra])
        return _run_job(source, progress=progress, force=force, debug=debug)

    _finish(work, debug=debug)


@app.command("plan")
def plan_spec(
    spec: SpecFile,
    *,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say for each shard of a spec file's job why it would run or be skipped. Jobs as verbs take --plan."""

    def work() -> int:
        return _print_plan(_spec.apply_settings(_spec.read_file(spec), settings), as_json=as_json)

    _finish(work, debug=debug)


@app.command("verify")
def verify_output(
    output: Annotated[str, typer.Argument(metavar="OUT", help="a run directory, or a split file")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check every byte of a finished run against its manifest."""

    def work() -> int:
        from engine.runtime.verify import verify

        found = verify(output)
        _say(*(_verify_json(found) if as_json else _verify_text(output, found)))
        return errors.EXIT_INPUT if found.problems else errors.EXIT_DONE

    _finish(work, debug=debug)


@app.command("schema")
def job_schema(
    job: Annotated[str, typer.Argument(metavar="JOB", help="a job, such as score-variants")], debug: Debug = False
) -> None:
    """Print the JSON Schema of a job's spec."""
    _finish(lambda: _say(json.dumps(_spec.spec_class(job).model_json_schema(), indent=2)), debug=debug)


models_app = typer.Typer(
    cls=_Models, invoke_without_command=True, subcommand_metavar="| import ...", rich_markup_mode=None
)
app.add_typer(models_app, name="models")


@models_app.callback()
def models(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="a model by name, or a model folder: shows its facts")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the models that ship, show the facts of one, or import networks."""
    from jobs import _models

    if ctx.invoked_subcommand is None:
        _finish(lambda: _say(*(_models.facts(name, as_json) if name else _models.listing(as_json))), debug=debug)


@models_app.command("import")
def import_networks(
    origin: Annotated[str, typer.Argument(metavar="spliceai|openspliceai", help="whose networks they are")],
    *,
    folder: Annotated[
        str,
        typer.Option("--from", metavar="DIR", help="your own install: SpliceAI's package, or a folder of .pt files"),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="MODEL", help="the model folder to make")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="you have read and accept the licence of the weights")
    ] = False,
    debug: Debug = False,
) -> None:
    """Turn networks of your own install into a model folder, once: SpliceAI's Keras files, OpenSpliceAI's .pt files.

    The licence of the weights is shown and asked for on a terminal, and recorded in the folder. Nothing in the files is
    run or unpickled, and neither TensorFlow nor the package they belong to is needed.
    """
    from jobs import _models

    def work() -> None:
        ask = _models.terminal_question()
        _models.import_networks(origin, folder, output, accept_licence=accept_licence, say=_say, ask=ask)

    _finish(work, debug=debug)


store_app = typer.Typer(no_args_is_help=True, help="Keep scores from run to run: list a score store, import others'.")
app.add_typer(store_app, name="store")


@store_app.command("import")
def store_import(
    scores: Annotated[str, typer.Argument(metavar="FILE", help="a VCF with INFO/SpliceAI, or run:DIR, a finished run")],
    *,
    store: Annotated[str, typer.Option("--store", metavar="DIR", help="the score store: a local path, s3:// or gs://")],
    source: Annotated[str, typer.Option("--source", metavar="NAME", help="who made the scores; rows name it")],
    reference: Annotated[str, typer.Option("--reference", "-f", help="reference genome they were made on")],
    genes: Annotated[str | None, typer.Option("--genes", "-g", help="annotation that they were made with")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="model that they are of")] = None,
    scorer: Annotated[str | None, typer.Option("--scorer", help="scorer that they are of")] = None,
    distance: Annotated[int | None, typer.Option("--distance", help="its distance, bp")] = None,
    mask: Annotated[bool, typer.Option("--mask", help="the scores are masked")] = False,
    compatibility: Annotated[str | None, typer.Option("--compatibility", help="its compatibility mode")] = None,
    all_transcripts: Annotated[bool, typer.Option("--all-transcripts", help="a row per transcript")] = False,
    contig_alias: Annotated[list[str], typer.Option("--contig-alias", metavar="NAME=VALUE")] = [],  # noqa: B006
    settings: Settings = [],  # noqa: B006 (typer copies it)
    debug: Debug = False,
) -> None:
    """Take scores that others computed into a score store; a run looks into them where --store-sources names them."""
    given = {
        **{"IN": scores, "--reference": reference, "--genes": genes, "--model": model, "--scorer": scorer},
        **{"--distance": distance, "--mask": mask, "--compatibility": compatibility},
        **{"--all-transcripts": all_transcripts, "--contig-alias": contig_alias},
    }

    def work() -> None:
        from jobs import _store

        _say(*_store.import_scores(given, settings, store=store, source=source))

    _finish(work, debug=debug)


@store_app.command("list")
def store_list(
    store: Annotated[str, typer.Argument(metavar="DIR", help="the score store")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What a score store holds: for each model and settings its sources, segments, rows and bytes."""
    from jobs import _store

    _finish(lambda: _say(*_store.listing(store, as_json)), debug=debug)


@app.command("jobs")
def list_jobs(as_json: AsJson = False) -> None:
    """List the jobs that can be run."""
    found = {name.replace("_", "-"): _spec.job_summary(name) for name in _spec.job_names()}
    width = max(map(len, found), default=0)
    text = [json.dumps(found, indent=1)] if as_json else [f"{name:{width}}  {doc}" for name, doc in found.items()]
    _finish(lambda: _say(*text))


@app.command("version")
def show_version() -> None:
    """Print the version."""
    _finish(lambda: _say(__version__))


def _job_page(job: str) -> Any:
    from importlib import import_module

    return import_module(f"jobs.{job}")


def _context(*, progress: str, debug: bool, force: bool) -> RunContext:
    import shlex

    from engine.runtime.run import RunContext

    return RunContext(progress=progress, debug=debug, force=force, command=shlex.join(["replisome", *sys.argv[1:]]))


def _run_job(source: _spec.Source, *, progress: str, force: bool, debug: bool, job: str | None = None) -> int:
    from jobs._next import next_lines

    name, spec = _spec.build(source, job=job)
    outcome = _job_page(name).run(spec, _context(progress=progress, debug=debug, force=force))
    _say(*(outcome.lines() if hasattr(outcome, "lines") else _outcome_lines(outcome)))
    _say(*next_lines(name, spec, outcome))
    return int(getattr(outcome, "exit_code", errors.EXIT_DONE))


def _outcome_lines(outcome: RunOutcome) -> Iterable[str]:
    from engine.runtime.layout import REPORT_HTML
    from schemas.states import ALL_STATES

    found = outcome.totals.states
    counts = ", ".join(f"{found[state]:,} {state.replace('_', ' ')}" for state in ALL_STATES if state in found)
    done = "finished before, nothing to do" if outcome.already_finished else "finished"
    yield f"{outcome.uri}: {done}; {outcome.totals.records_in:,} records; rows: {counts}"
    yield from (f"  {outcome.uri}/{path}" for path in (*outcome.results, "data/", REPORT_HTML))


def _print_plan(source: _spec.Source, *, as_json: bool, job: str | None = None) -> int:
    name, spec = _spec.build(source, job=job)
    lines = _job_page(name).plan(spec, _context(progress="none", debug=False, force=False))
    _say(*(_plan_json(line) if as_json else _plan_text(line) for line in lines))
    if not as_json:
        num_run = sum(line.action == "run" for line in lines)
        _say(f"{num_run:,} of {len(lines):,} shards to run")
    return errors.EXIT_DONE


def _plan_json(line: PlanLine) -> str:
    facts = {"shard": line.shard.shard, "action": line.action, "why": line.why, "num_records": line.shard.num_records}
    return json.dumps({**facts, "contig": line.shard.contig, "start": line.shard.start})


def _plan_text(line: PlanLine) -> str:
    shard = line.shard
    place = f"from {shard.contig}:{shard.start + 1:,}" if shard.contig and shard.start is not None else "unplaced"
    return f"shard {shard.shard}: {line.action}, {line.why} ({shard.num_records:,} records {place})"


def _verify_json(found: Verification) -> Iterable[str]:
    yield json.dumps(asdict(found), indent=1)


def _verify_text(output: str, found: Verification) -> Iterable[str]:
    yield from (f"{problem.path}: {problem.sentence}" for problem in found.problems)
    yield from (f"{path}: belongs to no run" for path in found.unlisted)
    state = "finished run" if found.finished else "unfinished run, its published parts"
    size = f"{found.num_files:,} files, {found.num_bytes:,} bytes"
    verdict = f"{len(found.problems):,} problems" if found.problems else "all as committed"
    yield f"{output}: {state}; {size}; {verdict}"


def _say(*lines: str) -> None:
    """Print to standard output, telling its reader's going apart from any other broken pipe."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise _StdoutClosed from None


def _finish(work: Callable[[], int | None], *, debug: bool = False) -> NoReturn:
    """Do the work and end the process with its exit code."""
    raise typer.Exit(exit_code_of(work, debug=debug))


def exit_code_of(work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Do the work; any failure becomes one sentence on standard error and its exit code.

    Args:
        work: returns an exit code, or None for success.
        debug: print the full trace as well.
    """
    try:
        return work() or errors.EXIT_DONE
    except _StdoutClosed:
        # Python would complain about the closed pipe once more as it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Terminated:
        return _complain("terminated", RESUME, errors.EXIT_TERMINATED)
    except KeyboardInterrupt:
        return _complain("interrupted", RESUME, errors.EXIT_INTERRUPTED)
    except errors.ReplisomeError as error:
        _trace(debug)
        return _complain(str(error), "", error.exit_code)
    except MemoryError:
        _trace(debug)
        return _complain("out of memory", "use fewer --workers or a smaller --micro-batch", errors.EXIT_SYSTEM)
    except Exception as error:
        _trace(debug)
        text = " ".join(str(error).split()) or "no message"
        fix = "run again with --debug for the full trace"
        return _complain(f"unexpected {type(error).__name__}: {text[:300]}", "" if debug else fix, errors.EXIT_SYSTEM)


def _trace(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def _complain(what: str, fix: str, code: int) -> int:
    text = f"replisome: {what}; {fix}" if fix else f"replisome: {what}"
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code


def _on_sigterm(_signum: int, _frame: object) -> NoReturn:
    raise Terminated


def main() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    app(prog_name="replisome")
