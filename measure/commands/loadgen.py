"""The command `loadgen`: its options, what it prints and writes."""

import argparse
import importlib.util
from pathlib import Path

from client.errors import UsageError
from command_line import extras, terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, WRONG, exit_codes
from measure.core import arguments, environment
from measure.core.record import dumps, write_text_atomically
from measure.core.verification import Experiment
from measure.loadgen import record as loadgen_record
from measure.loadgen import table as loadgen_table
from measure.loadgen.runs import Plan, Result, loadgen
from measure.loadgen.worker_job import SCENARIOS, TRANSPORTS, Rules, Scenario
from measure.sweep.sweep import MODEL
from measure.sweep.terminal import SweepProgress

QUICK_S = 5.0
EXAMPLES, QUICK_EXAMPLES = 1024, 256


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("a run is not VALID, or labels are wrong", keeps=True)
    parser.set_defaults(command=_loadgen)
    parser.add_argument(
        "--scenario",
        choices=(*SCENARIOS, "all"),
        default="all",
        help="default: %(default)s, one after another",
    )
    parser.add_argument(
        "--quick",
        type=arguments.seconds,
        nargs="?",
        const=QUICK_S,
        metavar="S",
        help=f"runs of S seconds ({QUICK_S:g} without S) instead of LoadGen's 600: "
        "not a valid MLPerf result",
    )
    parser.add_argument(
        "--address",
        type=arguments.address,
        metavar="A",
        help="drive this server (default: one of its own)",
    )
    arguments.add_credentials(parser)
    parser.add_argument(
        "--model", default=MODEL, help="its name at --address (default: %(default)s)"
    )
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default="stream",
        help="all queries on one stream, or a request each (default: %(default)s)",
    )
    parser.add_argument(
        "--in-flight",
        type=arguments.positive,
        default=32,
        metavar="N",
        help="unary requests under way at most (default: %(default)s)",
    )
    parser.add_argument(
        "--server-qps",
        type=arguments.over_zero,
        metavar="R",
        help="queries a second of Server (default: half of what a warm-up reaches)",
    )
    parser.add_argument(
        "--server-latency-ms",
        type=arguments.over_zero,
        default=100.0,
        metavar="MS",
        help="bound of Server on the 99th percentile (default: %(default)g)",
    )
    parser.add_argument(
        "--offline-qps",
        type=arguments.over_zero,
        metavar="R",
        help="samples a second that Offline is made for (default: what a warm-up suggests)",
    )
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        default=30.0,
        metavar="S",
        help="a run to which nothing is answered that long has failed (default: %(default)g)",
    )
    parser.add_argument(
        "--ep",
        default="cpu",
        metavar="NAME[:key=value,...]",
        help="execution provider of a server of its own, as the server's --ep "
        "(default: %(default)s)",
    )
    arguments.add_model(parser, Path("results/loadgen"))
    parser.add_argument(
        "--examples",
        type=arguments.positive,
        metavar="N",
        help=f"rows of X, the data set (default: {EXAMPLES}, or {QUICK_EXAMPLES} with --quick)",
    )


def _loadgen(args: argparse.Namespace) -> int:
    """Exit code 0: every run is VALID and every label right; 1: not so."""
    # The processes that import it start after minutes of preparing; this one never does.
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise extras.missing("loadgen", "loadgen", "mlperf_loadgen")
    if args.address is None and args.model != MODEL:
        raise UsageError(
            f"--model {args.model} came without --address; a server of its own has {MODEL}"
        )
    scenarios: tuple[Scenario, ...] = SCENARIOS if args.scenario == "all" else (args.scenario,)
    plan = Plan(
        scenarios=scenarios,
        experiment=Experiment(
            classes=args.classes,
            features=args.features,
            dtype=args.dtype,
            seed=args.seed,
            examples=args.examples or (EXAMPLES if args.quick is None else QUICK_EXAMPLES),
        ),
        rules=Rules(args.quick, args.server_latency_ms, args.server_qps, args.offline_qps),
        transport=args.transport,
        in_flight=args.in_flight,
        timeout_s=args.timeout,
        address=args.address,
        model=args.model,
        threads=args.threads,
        ep=args.ep,
        out=args.out,
        credential_files=arguments.credential_files(args),
    )
    with results_folder(plan.out):
        return _measure(plan)


def _measure(plan: Plan) -> int:
    notes = terminal.progress()
    label = loadgen_record.label(plan)
    notes.print(label, style="bold yellow", markup=False)
    start = environment.snapshot()
    results: list[Result] = []
    with keeping() as kept, SweepProgress(notes) as progress:
        for result in loadgen(plan, progress):
            results.append(result)
    marks = kept.because(len(results), f"{len(results)} of {len(plan.scenarios)} scenarios")
    around = environment.describe(start, environment.snapshot())
    path = plan.out / "loadgen.json"
    content = loadgen_record.to_json(plan, around, results) | marks
    write_text_atomically(path, dumps(content))
    console = terminal.results()
    console.print(loadgen_table.render(results, label))
    for line in loadgen_table.reasons(results):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for result in results:
        console.print(str(plan.out / result.scenario), highlight=False, soft_wrap=True)
    console.print(str(path), highlight=False, soft_wrap=True)
    kept.end(plan.out)
    return DONE if all(result.good for result in results) else WRONG
