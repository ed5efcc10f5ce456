"""The Kubernetes files, composed: valid, and in accord with the image and the server's limits."""

import re
import subprocess
import textwrap

import kubernetes_tools
import pytest
from conftest import ROOT

from server.app.config import Config

DEPLOY = ROOT / ".venv-deploy" / "bin"
VALIDATE = DEPLOY / "kubernetes-validate"
FOLDER = ROOT / "deploy" / "kubernetes"
DEPLOYMENT = FOLDER / "base" / "deployment.yaml"
RUNTIME = FOLDER / "kserve" / "serving-runtime.yaml"
KSERVE = FOLDER / "kserve" / "inference-service.yaml"
RULES = FOLDER / "components" / "monitoring" / "rules.yaml"
# What is applied as a whole, and the kinds in it.
BASE = {"Namespace", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
MONITORED = BASE | {"ServiceMonitor", "PrometheusRule"}
WHOLES = {
    "base": BASE,
    "overlays/hpa": MONITORED | {"HorizontalPodAutoscaler"},
    "overlays/keda": MONITORED | {"ScaledObject"},
    "kserve": {"ServingRuntime", "InferenceService"},
}
OTHERS = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "ServingRuntime", "InferenceService"}
MISTAKES = (
    ("base", "readinessProbe:", "readynessProbe:", "'readynessProbe' was unexpected"),
    ("base", "seconds: 5", "seconds: five", "'five' is not of type 'integer'"),
    ("base", "kind: Deployment", "kind: Deploymint", "find schema for kind Deploymint"),
    ("base", "apiVersion: apps/v1\n", "", "'apiVersion'"),
    ("base", "maxUnavailable: 1\n  sel", "maxUnavailabel: 1\n  sel", "'maxUnavailabel' was"),
    ("overlays/hpa", "averageValue:", "averageVal:", "'averageVal' was unexpected"),
)
OTHERS_MISTAKES = (
    ("overlays/hpa", "targetLabel: job", "targetLable: job", "ServiceMonitor", "targetLable"),
    ("overlays/hpa", "severity: critical", "severity: 3", "PrometheusRule", "3 is not of type"),
    ("overlays/keda", "minReplicaCount:", "minReplicas:", "ScaledObject", "minReplicas"),
    ("kserve", "[grpc-v2]", "grpc-v2", "ServingRuntime", "is not of type 'array'"),
    ("kserve", "protocolVersion:", "protocolVersions:", "InferenceService", "protocolVersions"),
)
CHECK_S = 110

needs_schemas = pytest.mark.skipif(
    not VALIDATE.is_file(), reason="no .venv-deploy, which `make deploy-check` makes"
)


def run(*words, **options):
    return subprocess.run(
        words, capture_output=True, text=True, timeout=CHECK_S, check=False, **options
    )


@pytest.fixture(scope="module")
def composed():
    """The files of a folder as one text."""
    try:
        words = kubernetes_tools.kustomize()
    except kubernetes_tools.Unavailable as missing:
        pytest.skip(str(missing))

    def compose(name):
        done = run(*words, FOLDER / name)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return compose


@pytest.fixture(scope="module")
def definitions():
    try:
        return kubernetes_tools.definitions()
    except kubernetes_tools.Unavailable as missing:
        pytest.skip(str(missing))


def complaints(file):
    """Lines about Kubernetes' own kinds that are not known to be valid."""
    done = run(VALIDATE, "--strict", file)
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, f"exit code {done.returncode}"
    others = tuple(f"find schema for kind {kind} " for kind in OTHERS)
    return [
        line
        for line in lines
        if " passed for resource " not in line and not any(each in line for each in others)
    ]


def verdicts(text, definitions):
    """The kind and the verdict of each manifest of a kind that is not Kubernetes' own."""
    checker = ROOT / "tests" / "deploy" / "custom_kinds.py"
    done = run(DEPLOY / "python", checker, *definitions, input=text)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split(" ", 1)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", WHOLES)
def test_each_whole_has_its_kinds_in_one_namespace(composed, name):
    text = composed(name)
    assert set(re.findall(r"^kind: (\w+)", text, re.MULTILINE)) == WHOLES[name]
    namespaced = WHOLES[name] - {"Namespace"}
    found = re.findall(r"^  namespace: ([\w-]+)$", text, re.MULTILINE)
    assert found == ["argmax-serving"] * len(namespaced)


def test_every_folder_is_part_of_a_whole():
    used = set(WHOLES)
    for name in WHOLES:
        text = (FOLDER / name / "kustomization.yaml").read_text()
        used |= {each.removeprefix("../../") for each in re.findall(r"\.\./\.\./[\w/]+", text)}
    folders = {each.parent.relative_to(FOLDER) for each in FOLDER.rglob("*.yaml")}
    assert {str(each) for each in folders} == used


@needs_schemas
@pytest.mark.parametrize("name", WHOLES)
def test_kubernetes_own_kinds_are_valid(composed, tmp_path, name):
    file = tmp_path / "composed.yaml"
    file.write_text(composed(name))
    assert complaints(file) == []


@needs_schemas
@pytest.mark.parametrize("name", WHOLES)
def test_the_kinds_of_others_fit_their_definitions(composed, definitions, name):
    found = verdicts(composed(name), definitions)
    assert sorted(found) == sorted((kind, "ok") for kind in WHOLES[name] & OTHERS)


@needs_schemas
@pytest.mark.parametrize(("name", "right", "wrong", "complaint"), MISTAKES)
def test_mistakes_are_found(composed, tmp_path, name, right, wrong, complaint):
    text = composed(name)
    assert right in text
    file = tmp_path / "composed.yaml"
    file.write_text(text.replace(right, wrong))
    lines = complaints(file)
    assert [line for line in lines if complaint in line], lines


@needs_schemas
@pytest.mark.parametrize(("name", "right", "wrong", "kind", "complaint"), OTHERS_MISTAKES)
def test_mistakes_in_the_kinds_of_others_are_found(
    composed, definitions, name, right, wrong, kind, complaint
):
    text = composed(name).replace("protocolVersions:\n  - grpc-v2", "protocolVersions: [grpc-v2]")
    assert right in text
    found = verdicts(text.replace(right, wrong), definitions)
    assert [each for each in found if each[0] == kind and complaint in each[1]], found


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return int(found)


@pytest.mark.parametrize(("container", "pod"), [(DEPLOYMENT, DEPLOYMENT), (RUNTIME, KSERVE)])
def test_a_pod_has_the_time_that_its_server_may_take(container, pod):
    text = container.read_text()
    grace = number(r'--grace-s,?\s+(?:- )?"(\d+)"', text)
    sleep = number(r"sleep:\n +seconds: (\d+)", text)
    # The end of a process that hangs, 4.5 s after its grace period, and as much for a slow node.
    assert number(r"terminationGracePeriodSeconds: (\d+)", pod.read_text()) == sleep + grace + 10


@pytest.mark.parametrize("file", [DEPLOYMENT, RUNTIME])
def test_the_options_of_a_pod_are_the_servers(file):
    names = re.findall(r"(?<![\w-])--([a-z][\w-]+)(?=[,\]\n])", file.read_text())
    options = {name.replace("-", "_") for name in names}
    assert options > {"grace_s", "max_connection_age_s"}
    assert options <= set(Config.__dataclass_fields__)


def test_the_alerts_are_those_of_prometheus():
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    _, _, groups = alerts.partition("\n")
    _, _, spec = RULES.read_text().partition("\nspec:\n")
    assert groups.startswith("groups:")
    assert spec == textwrap.indent(groups, "  ")


def test_an_autoscaler_owns_the_number_of_replicas(composed):
    for name in ("base", "overlays/hpa", "overlays/keda"):
        documents = composed(name).split("\n---\n")
        (deployment,) = (each for each in documents if "\nkind: Deployment\n" in each)
        assert ("\n  replicas:" in deployment) == (name == "base")


def test_both_autoscalers_keep_the_same_bounds_and_target():
    hpa = (FOLDER / "components" / "hpa" / "autoscaler.yaml").read_text()
    keda = (FOLDER / "components" / "keda" / "scaled-object.yaml").read_text()
    assert number(r"minReplicas: (\d+)", hpa) == number(r"minReplicaCount: (\d+)", keda)
    assert number(r"maxReplicas: (\d+)", hpa) == number(r"maxReplicaCount: (\d+)", keda)
    assert number(r'averageValue: "(\d+)"', hpa) == number(r' threshold: "(\d+)"', keda)
