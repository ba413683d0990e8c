"""What the card says besides results: origin, labels, data, pixels, how to do it again, licences, provenance.

Knows which facts of `run.json` go where, and leaves out what is not there. Measures nothing, and does not escape
anything: the template does.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from hf_transfer.data.image_data import SPLIT_NAMES
from hf_transfer.publishing.card_metadata import hub_base, shown_data
from hf_transfer.publishing.card_text import code_block, plain
from hf_transfer.publishing.license_verdict import LicenseLink, LicenseVerdict, OutgoingLicense
from hf_transfer.publishing.usage import snippet

MOST_LABELS = 200
_PIXELS = ("training pixels", "evaluation pixels")
_LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "datasets",
    "accelerate",
    "pillow",
    "numpy",
    "scikit-learn",
)


def card_facts(report: Mapping[str, Any], verdict: LicenseVerdict | None, repo_id: str | None) -> dict[str, Any]:
    """Returns what the sections besides results say.

    Args:
        report (`Mapping`):
            `run.json`, without local places.
        verdict (`LicenseVerdict`, *optional*):
            Its licence verdict.
        repo_id (`str`, *optional*):
            Where the card is published.
    """
    decisions = {decision["name"]: decision for decision in report["decisions"]}
    base = _short(report["checkpoint"]["source"])
    return {
        "title": plain(f"{base} fine-tuned on {_short(shown_data(report))}"),
        "base": {"words": _base_words(report)},
        "strategy": decisions["strategy"],
        "usage": _usage(report, repo_id),
        "labels": _labels(report["data"]),
        "data": _data(report),
        "pixels": _pixels(report, decisions),
        "reproduce": _reproduce(report),
        "licence": None if verdict is None else _licence(verdict),
        "provenance": _provenance(report),
    }


def _base_words(report: Mapping[str, Any]) -> str:
    checkpoint = report["checkpoint"]
    origin = _short(checkpoint["source"]) if not checkpoint["revision"] else checkpoint["source"]
    if not checkpoint["weights_sha256"]:
        return f"{checkpoint['architecture']} from fresh weights"
    return f"{checkpoint['architecture']}, fine-tuned from {origin}"


def _usage(report: Mapping[str, Any], repo_id: str | None) -> dict[str, Any] | None:
    usage = report.get("usage")
    if not usage or not usage["worked"]:
        return None
    lines = snippet(repo_id or report["outputs"]["model"], "picture.jpg")
    return {"code": code_block(lines.rstrip(), "python"), "is_published": repo_id is not None}


def _labels(data: Mapping[str, Any]) -> dict[str, Any]:
    counts = data["class_counts"]
    splits = [split for split in SPLIT_NAMES if split in counts]
    names = data["label_names"]
    rows = [
        {"number": number, "label": name, "counts": [counts[split][number] for split in splits]}
        for number, name in enumerate(names[:MOST_LABELS])
    ]
    return {"count": len(names), "splits": splits, "rows": rows, "more": max(0, len(names) - MOST_LABELS)}


def _data(report: Mapping[str, Any]) -> dict[str, Any]:
    data = report["data"]
    lineage = (report.get("lineage") or {}).get("data") or {}
    splits = lineage.get("splits") or {}
    facts = [f"Source: {shown_data(report)} ({data['kind']})"]
    facts += [f"Commit: {data['revision']}"] if data["revision"] else []
    facts.append(f"Fingerprint (SHA-256 over labels, splits and the pictures' contents): {data['fingerprint']}")
    if lineage.get("manifest_sha256"):
        facts.append(f"SHA-256 of the manifest, which lists every picture: {lineage['manifest_sha256']}")
    return {
        "name": shown_data(report),
        "facts": [*facts, *data["notes"]],
        "hashes": bool(splits),
        "splits": [
            {
                "name": split,
                "pictures": size,
                "method": data["split_methods"].get(split, ""),
                "sha256": splits.get(split, {}).get("sha256", ""),
            }
            for split, size in data["split_sizes"].items()
        ],
    }


def _pixels(report: Mapping[str, Any], decisions: Mapping[str, Mapping[str, str]]) -> list[str]:
    items = [
        f"{name.capitalize()}: {decisions[name]['value']} ({decisions[name]['reason']})"
        for name in _PIXELS
        if name in decisions
    ]
    settings = report["checkpoint"].get("preprocessing") or {}
    shown = "; ".join(f"{name} {_compact(value)}" for name, value in settings.items())
    return [*items, f"Settings of the image processor: {shown}"] if shown else items


def _reproduce(report: Mapping[str, Any]) -> dict[str, Any]:
    versions, hardware, seconds = report["versions"], report["hardware"], report["seconds"]
    code_facts = (report.get("lineage") or {}).get("code") or {}
    shown = ", ".join(f"{name} {versions[name]}" for name in _LIBRARIES if name in versions)
    machine = f"{hardware['processor']}, {hardware['cores']} cores"
    machine += "".join(f", {name}" for name in hardware["accelerators"]) or ", no accelerator"
    facts = [
        f"Started: {report['started']}; seed {report['seed']}; {_processes(hardware['num_processes'])}",
        *([f"Recipe: {report['config']['recipe']}"] if report["config"].get("recipe") else []),
        f"Versions: Python {versions['python']}, {shown}",
        f"Code: {_code_words(code_facts, versions)}",
        f"Hardware: {machine}, {hardware['system']}",
        f"Wall-clock time: {sum(seconds.values()):.1f} s "
        f"({', '.join(f'{stage} {value:.1f} s' for stage, value in seconds.items())})",
    ]
    command = shlex.join(["hf-transfer", "train", *(plain(word, 2000) for word in report["command"])])
    return {"command": code_block(command), "facts": facts, "decisions": report["decisions"]}


def _code_words(facts: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    words = f"hf-transfer-learning {facts.get('version') or versions['hf-transfer-learning']}"
    if facts.get("commit"):
        words += f", commit {facts['commit']}"
        words += " with changes that are not committed" if facts.get("dirty") else ""
    return words


def _licence(verdict: LicenseVerdict) -> dict[str, Any]:
    use = f"{verdict.use} use" if verdict.use else "research use (no use was declared)"
    return {
        "use": use,
        "grade": str(verdict.grade),
        "publishing": str(verdict.publishing),
        "outgoing": None if verdict.outgoing is None else _outgoing_words(verdict.outgoing),
        "reason": None if verdict.outgoing is None else verdict.outgoing.reason,
        "works": [_work(link) for link in verdict.links],
        "obligations": verdict.obligations,
        "overrides": verdict.overrides,
        "notes": verdict.notes,
    }


def _outgoing_words(outgoing: OutgoingLicense) -> str:
    return f"{outgoing.name or outgoing.license}{f' ({outgoing.link})' if outgoing.link else ''}"


def _work(link: LicenseLink) -> dict[str, str]:
    at = f" at commit {link.revision}" if link.revision else ""
    said = [f"{one.source}: {one.license or 'says nothing'} [{one.evidence}]" for one in link.statements]
    problems = [link.problem] if link.problem else []
    return {
        "work": (link.work if link.revision else _short(link.work)) + at,
        "role": link.role,
        "license": link.license or "unknown",
        "grade": str(link.grade),
        "reason": link.reason,
        "evidence": "; ".join([*said, *problems]) or "none",
    }


def _provenance(report: Mapping[str, Any]) -> dict[str, Any]:
    checkpoint, lineage = report["checkpoint"], report.get("lineage") or {}
    source = hub_base(report) or _short(checkpoint["source"])
    origin = f"{source} at commit {checkpoint['revision']}" if checkpoint["revision"] else source
    weights = f"SHA-256 of its weights {checkpoint['weights_sha256']}"
    facts = [f"Checkpoint: {origin}; {weights if checkpoint['weights_sha256'] else 'its weights were not taken'}"]
    facts.append(f"Parameters: {checkpoint['num_parameters']:,}")
    facts += _groups(report["training"].get("layer_groups") or ())
    new = checkpoint["new_tensors"]
    if not checkpoint["weights_sha256"]:
        facts.append(f"New tensors: all {len(new)}")
    else:
        facts.append(f"New tensors: {', '.join(new) or 'none, the head of the checkpoint is kept'}")
    return {
        "facts": [*facts, *checkpoint["notes"]],
        "files": sorted((lineage.get("model_files") or {}).items()),
        "verify": bool(lineage),
    }


def _groups(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    items = []
    for learned, verb in ((True, "trained"), (False, "frozen throughout")):
        chosen = [group for group in groups if group["learned"] is learned]
        if chosen:
            names = ", ".join(group["name"] for group in chosen)
            size = sum(group["num_parameters"] for group in chosen)
            items.append(f"Layer groups {verb}: {names} ({size:,} parameters)")
    return items


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"


def _compact(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_compact(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_compact(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(name: str) -> str:
    """Returns the last part of a path or of a Hub id."""
    return PurePath(name).name or name
