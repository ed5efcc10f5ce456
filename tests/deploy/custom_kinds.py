"""Check manifests of kinds that are not Kubernetes' own: python custom_kinds.py CRD... < MANIFESTS.

.venv-deploy runs it, which has PyYAML and jsonschema. For each manifest whose kind one of the
CustomResourceDefinitions has, a line `KIND ok` or `KIND PATH: COMPLAINT`; other kinds are left out.
"""

import sys

import yaml
from jsonschema import Draft202012Validator


def strict(schema):
    """The schema with unnamed fields forbidden, as `kubectl --validate=strict` has it."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {
        key: {name: strict(each) for name, each in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
    }
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def whole(schema):
    """The schema of a resource, with the fields that every resource has."""
    properties = schema["properties"] | {"metadata": {"type": "object"}}
    return strict(schema | {"properties": properties})


def main(files):
    """Print what each manifest on stdin gets."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    manifests = [each for each in yaml.load_all(sys.stdin, loader) if each]
    for file in files:
        with open(file, encoding="utf-8") as opened:
            definition = yaml.load(opened, loader)["spec"]
        for version in definition["versions"]:
            name = f"{definition['group']}/{version['name']}", definition["names"]["kind"]
            for manifest in manifests:
                if (manifest["apiVersion"], manifest["kind"]) != name:
                    continue
                schema = whole(version["schema"]["openAPIV3Schema"])
                errors = list(Draft202012Validator(schema).iter_errors(manifest))
                for error in errors:
                    print(name[1], f"{error.json_path}: {error.message[:300]}")
                if not errors:
                    print(name[1], "ok")


if __name__ == "__main__":
    main(sys.argv[1:])
