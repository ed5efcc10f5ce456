"""The command `loadgen`: its options, what it prints and writes."""

import argparse
import importlib.util

from client.errors import UsageError
from command_line import extras, terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.commands import verdicts
from measure.core import environment, options
from measure.core.arguments import over_zero, positive, seconds
from measure.core.record import write_record
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
    runs, server = group(parser, "runs"), group(parser, options.SERVER)
    runs.add_argument(
        "--scenario",
        choices=(*SCENARIOS, "all"),
        default="all",
        help="scenario to run (default: %(default)s, one after another)",
    )
    runs.add_argument(
        "--quick",
        type=seconds,
        nargs="?",
        const=QUICK_S,
        metavar="S",
        help=f"runs of S seconds ({QUICK_S:g} without S) instead of LoadGen's 600: "
        "not a valid MLPerf result",
    )
    options.add_server(parser, "drive", MODEL)
    server.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default="stream",
        help="send all queries on one stream, or one request per query (default: %(default)s)",
    )
    add_option(server, "--in-flight", positive, 32, "N", "most unary requests in flight")
    text = "queries per second of Server (default: half of the rate of a warm-up)"
    add_option(runs, "--server-qps", over_zero, None, "R", text)
    text = "bound of p99 in Server, in milliseconds (default: %(default)g)"
    add_option(runs, "--server-latency-ms", over_zero, 100.0, "MS", text)
    text = "expected samples per second of Offline (default: the rate of a warm-up)"
    add_option(runs, "--offline-qps", over_zero, None, "R", text)
    options.add_timeout(server, "without an answer after which a run has failed")
    options.add_ep(parser)
    options.add_model(parser, "results/loadgen")
    text = f"rows of X, the data set (default: {EXAMPLES}, or {QUICK_EXAMPLES} with --quick)"
    add_option(group(parser, options.MODEL), "--examples", positive, None, "N", text)


def _loadgen(args: argparse.Namespace) -> int:
    """Exit code 0: every run is VALID and every label right; 1: not so."""
    # It is imported by processes that start after minutes of preparation, never by this one.
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise extras.missing("loadgen", "loadgen", "mlperf_loadgen")
    if args.address is None and args.model != MODEL:
        raise UsageError(f"got --model {args.model} without --address, expected {MODEL}")
    scenarios: tuple[Scenario, ...] = SCENARIOS if args.scenario == "all" else (args.scenario,)
    plan = Plan(
        scenarios=scenarios,
        experiment=Experiment(
            args.classes,
            args.features,
            args.dtype,
            args.seed,
            args.examples or (EXAMPLES if args.quick is None else QUICK_EXAMPLES),
        ),
        rules=Rules(args.quick, args.server_latency_ms, args.server_qps, args.offline_qps),
        transport=args.transport,
        in_flight=args.in_flight,
        timeout_s=args.timeout_s,
        address=options.addresses(args),
        model=args.model,
        threads=args.threads,
        ep=args.ep,
        out=args.out,
        credential_files=options.credential_files(args),
        balance=args.balance,
        resolve_s=args.resolve_s,
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
    write_record(path, content)
    console = terminal.results()
    console.print(loadgen_table.render(results, label))
    for line in loadgen_table.reasons(results):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    folders = [plan.out / result.scenario for result in results]
    verdicts.end(console, [*folders, path], kept, plan.out)
    return DONE if all(result.good for result in results) else WRONG
