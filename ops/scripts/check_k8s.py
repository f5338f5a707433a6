"""Checks what `ops/k8s` comes to, on standard input: the output of `kustomize build`.

Every object against the schemas of Kubernetes (kubernetes-validate) where it is Kubernetes' own kind, and
whatever an object names by name against what there is: Secrets and ConfigMaps and their keys, Services and
their ports, the targets of scalers, selectors that select something.

usage: kustomize build OVERLAY | check_k8s.py [EXTERNAL-SECRET:KEY,KEY…]
"""

import sys

import kubernetes_validate
import yaml

# Kinds that operators bring; their schemas are not Kubernetes'.
FOREIGN = {"ScaledObject", "ServiceMonitor"}
problems = []


def pods(objects):
    """Every pod template, with the name of what holds it."""
    for o in objects:
        template = o.get("spec", {}).get("template")
        if o["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield f"{o['kind']}/{o['metadata']['name']}", template


def matches(selector, labels):
    """Whether a label selector selects these labels."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for e in selector.get("matchExpressions") or []:
        if e["operator"] == "In" and labels.get(e["key"]) not in e["values"]:
            return False
    return True


def references(spec):
    """(kind, name, key or None) of every Secret and ConfigMap that a pod needs."""
    for volume in spec.get("volumes", []):
        for kind, field, key in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
            if field in volume:
                source = volume[field]
                for item in source.get("items", [{"key": None}]):
                    yield kind, source[key], item["key"]
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            for kind, field in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                if field in source:
                    yield kind, source[field]["name"], None
        for variable in container.get("env", []):
            for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
                if field in variable.get("valueFrom", {}):
                    reference = variable["valueFrom"][field]
                    if not reference.get("optional"):
                        yield kind, reference["name"], reference["key"]


def hardened(name, spec):
    """What the standard `restricted` asks of a pod, and that our file systems are read-only."""
    if not spec.get("securityContext", {}).get("runAsNonRoot"):
        problems.append(f"{name}: may run as root")
    for c in spec["containers"]:
        context = c.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or not context.get("readOnlyRootFilesystem"):
            problems.append(f"{name}: {c['name']} may gain privileges or write its own files")
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            problems.append(f"{name}: {c['name']} keeps capabilities")
        if "memory" not in c.get("resources", {}).get("limits", {}):
            problems.append(f"{name}: {c['name']} has no limit of memory")
        mounted = {mount["name"] for mount in c.get("volumeMounts", [])}
        for missing in mounted - {v["name"] for v in spec.get("volumes", [])} - {"data"}:
            problems.append(f"{name}: mounts {missing}, which is no volume")


def main():
    objects = [o for o in yaml.safe_load_all(sys.stdin) if o]
    external = {}
    for word in sys.argv[1:]:
        name, _, keys = word.partition(":")
        external[name] = set(keys.split(","))
    for o in objects:
        if o["kind"] not in FOREIGN:
            try:
                kubernetes_validate.validate(o, kubernetes_validate.latest_version(), strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                problems.append(f"{o['kind']}/{o['metadata']['name']}: {where}: {error.message}")
    keys = {("Secret", name): keys for name, keys in external.items()}
    for o in objects:
        if o["kind"] in ("Secret", "ConfigMap"):
            keys[o["kind"], o["metadata"]["name"]] = set(o.get("data", {})) | set(o.get("stringData", {}))
    templates = list(pods(objects))
    for name, template in templates:
        hardened(name, template["spec"])
        for kind, wanted, key in references(template["spec"]):
            if (kind, wanted) not in keys:
                problems.append(f"{name}: there is no {kind} {wanted}")
            elif key is not None and key not in keys[kind, wanted]:
                problems.append(f"{name}: {kind} {wanted} has no key {key}")
    services = {o["metadata"]["name"]: o for o in objects if o["kind"] == "Service"}
    deployments = {o["metadata"]["name"] for o in objects if o["kind"] == "Deployment"}
    for o in objects:
        name, spec = f"{o['kind']}/{o['metadata']['name']}", o.get("spec", {})
        selector = {
            "Service": lambda: {"matchLabels": spec["selector"]},
            "NetworkPolicy": lambda: spec["podSelector"],
            "PodDisruptionBudget": lambda: spec["selector"],
            "Deployment": lambda: spec["selector"],
        }.get(o["kind"])
        if selector and not any(matches(selector(), t["metadata"]["labels"]) for _, t in templates):
            problems.append(f"{name}: selects no pod")
        if o["kind"] == "ServiceMonitor" and not any(
            matches(spec["selector"], s["metadata"].get("labels", {})) for s in services.values()
        ):
            problems.append(f"{name}: selects no Service")
        if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") and spec["scaleTargetRef"]["name"] not in deployments:
            problems.append(f"{name}: scales nothing that is there")
        if o["kind"] == "Ingress":
            for rule in spec["rules"]:
                for path in rule["http"]["paths"]:
                    service = services.get(path["backend"]["service"]["name"])
                    port = path["backend"]["service"]["port"]["name"]
                    if not service or port not in {p.get("name") for p in service["spec"]["ports"]}:
                        problems.append(f"{name}: {path['path']} leads nowhere")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(objects)} objects", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
