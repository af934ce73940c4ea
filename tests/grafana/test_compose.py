"""What `docker compose up` reads, as far as it can be checked without Docker: names, paths, and that parts agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from scripts.dashboards.files import FOLDER
from tests.conftest import ROOT
from tests.grafana.test_alerts import promtool

GRAFANA = ROOT / "grafana"
IN_IMAGE = PurePosixPath("/otel-lgtm")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


COMPOSE = read(GRAFANA / "compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
MOUNTS: dict[PurePosixPath, Path] = {
    PurePosixPath(target): GRAFANA / source
    for source, target, mode in (volume.split(":") for volume in SERVICES["lgtm"]["volumes"])
    if mode == "ro"
}


def on_this_machine(path: str) -> Path:
    """What a path in the container is here."""
    inside = PurePosixPath(path)
    for target, source in MOUNTS.items():
        if inside.is_relative_to(target):
            return source / inside.relative_to(target)
    raise AssertionError(f"{path} is in no volume")


def test_every_volume_is_there_and_read_only() -> None:
    assert len(MOUNTS) == len(SERVICES["lgtm"]["volumes"])
    for target, source in MOUNTS.items():
        assert source.exists(), source
        assert target.is_relative_to(IN_IMAGE)


def test_services_know_each_other() -> None:
    for service in SERVICES.values():
        assert set(service) <= {
            *("build", "image", "command", "environment", "depends_on", "ports", "volumes", "healthcheck"),
            "stop_grace_period",
        }
        assert ("build" in service) != ("image" in service)
        assert set(service.get("depends_on", {})) <= set(SERVICES)
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert all(re.fullmatch(r"[\w/.-]+:\d[\w.-]*", image) for image in images), "each with its version"
    demo = SERVICES["demo"]
    assert demo["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://lgtm:4318"
    assert demo["command"] == ["demo", "--redis", "redis://redis:6379/0"]
    assert "redis" in SERVICES


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]


def test_the_provider_reads_the_dashboards() -> None:
    [path] = (GRAFANA / "provisioning" / "dashboards").glob("*.yaml")
    document = read(path)
    assert document["apiVersion"] == 1
    [provider] = document["providers"]
    assert provider["type"] == "file"
    assert on_this_machine(provider["options"]["path"]) == FOLDER
    assert IN_IMAGE / "grafana/conf/provisioning/dashboards" / path.name in MOUNTS


def test_there_is_a_data_source_for_each_variable_and_each_reference() -> None:
    [path] = (GRAFANA / "provisioning" / "datasources").glob("*.yaml")
    document = read(path)
    assert document["apiVersion"] == 1
    sources = {source["uid"]: source for source in document["datasources"]}
    assert {"prometheus", "tempo"} <= {source["type"] for source in sources.values()}
    assert all({"name", "type", "uid", "access", "url"} <= set(source) for source in sources.values())
    assert [source["uid"] for source in sources.values() if source.get("isDefault")] == ["prometheus"]
    assert set(re.findall(r"datasourceUid: (\w+)", path.read_text())) <= set(sources)
    [exemplars] = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[exemplars["datasourceUid"]]["type"] == "tempo"
    seconds = int(SERVICES["demo"]["environment"]["OTEL_METRIC_EXPORT_INTERVAL"]) / 1000
    assert sources["prometheus"]["jsonData"]["timeInterval"] == f"{seconds:.0f}s"


@promtool
def test_prometheus_takes_its_configuration_with_all_rules(tmp_path: Path) -> None:
    source = MOUNTS[IN_IMAGE / "prometheus.yaml"]
    [pattern] = read(source)["rule_files"]
    folder, name = pattern.rsplit("/", 1)
    rules = sorted(on_this_machine(folder).glob(name))
    assert [rule.name for rule in rules] == ["alerts.rules.yml", "recording.rules.yml"]
    config = tmp_path / "prometheus.yaml"
    config.write_text(source.read_text().replace(folder, str(on_this_machine(folder))))
    ran = subprocess.run(["promtool", "check", "config", str(config)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"SUCCESS: {len(rules)} rule files found" in ran.stdout


def test_the_image_of_the_demo_gets_all_that_it_is_built_from(tmp_path: Path) -> None:
    """What is copied there makes the package, the command included."""
    build = SERVICES["demo"]["build"]
    assert (GRAFANA / build["context"]).resolve() == ROOT
    dockerfile = (ROOT / build["dockerfile"]).read_text()
    kept = (ROOT / f"{build['dockerfile']}.dockerignore").read_text()
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        *names, target = line.split()
        for name in names:
            assert f"!{name}\n" in kept
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, tmp_path / target)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    [extra] = re.findall(r'"\.\[(\w+)\]"', dockerfile)
    assert extra in project["optional-dependencies"]
    [entry] = re.findall(r'^ENTRYPOINT \["([\w-]+)"\]$', dockerfile, re.MULTILINE)
    assert entry in project["scripts"]
    code = "import hatchling.build; hatchling.build.build_wheel('out')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    [wheel] = (tmp_path / "out").glob("*.whl")
    assert {"aurelis/cache/manager.py", "aurelis_asgi/__init__.py", "aurelis_cli/demo/run.py"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
