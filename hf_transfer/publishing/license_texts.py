"""Which licences a text is, told by sentences that only their texts have.

Knows titles and sentences of the licences that are met beside models and data. Does not know any file or work. What is
not recognised is not guessed: a text that merely mentions a licence is none.
"""

import re

from hf_transfer.publishing.license_table import normalise

_PERMISSION = "permission is hereby granted, free of charge, to any person obtaining a copy"
_BSD = "redistribution and use in source and binary forms, with or without modification, are permitted"
_APPLE = "apple grants you a personal, non-exclusive license, under apple's copyrights in this original apple software"

_ALL_OF: dict[str, tuple[str, ...]] = {
    "apache-2.0": ("apache license version 2.0, january 2004",),
    "mit": (_PERMISSION, "the above copyright notice and this permission notice"),
    "bsd-3-clause-clear": (_BSD, "neither the name", "no express or implied licenses to any party's patent rights"),
    "isc": ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",),
    "bsl-1.0": ("boost software license - version 1.0",),
    "zlib": ("altered source versions must be plainly marked as such", "may not be misrepresented"),
    "unlicense": ("this is free and unencumbered software released into the public domain",),
    "wtfpl": ("do what the fuck you want to public license",),
    "ncsa": (_PERMISSION, "names of its contributors may be used to endorse or promote products"),
    "postgresql": ("permission to use, copy, modify, and distribute this software and its documentation for any "
                   "purpose, without fee, and without a written agreement",),
    "gpl-2.0": ("gnu general public license version 2, june 1991",),
    "gpl-3.0": ("gnu general public license version 3, 29 june 2007",),
    "agpl-3.0": ("gnu affero general public license version 3, 19 november 2007",),
    "lgpl-2.1": ("gnu lesser general public license version 2.1, february 1999",),
    "lgpl-3.0": ("gnu lesser general public license version 3, 29 june 2007",),
    "gfdl": ("gnu free documentation license version",),
    "mpl-2.0": ("mozilla public license version 2.0", "1.1. \"contributor\""),
    "epl-1.0": ("eclipse public license - v 1.0",),
    "epl-2.0": ("eclipse public license - v 2.0",),
    "eupl-1.1": ("european union public licence", "v. 1.1"),
    "eupl-1.2": ("european union public licence v. 1.2",),
    "afl-3.0": ("academic free license (\"afl\") v. 3.0",),
    "osl-3.0": ("open software license (\"osl\") v. 3.0",),
    "artistic-2.0": ("the artistic license 2.0",),
    "ms-pl": ("microsoft public license (ms-pl)",),
    "ofl-1.1": ("sil open font license version 1.1",),
    "odbl": ("open database license (odbl)", "produced work"),
    "odc-by": ("open data commons attribution license",),
    "pddl": ("public domain dedication and license", "open data commons"),
    "cdla-sharing-1.0": ("community data license agreement - sharing - version 1.0",),
    "cdla-permissive-1.0": ("community data license agreement - permissive - version 1.0",),
    "cdla-permissive-2.0": ("community data license agreement - permissive - version 2.0",),
    "c-uda": ("computational use of data agreement",),
    "openmdw-1.0": ("openmdw license agreement, version 1.0",),
    "openmdw-1.1": ("openmdw license agreement, version 1.1",),
    "bigscience-openrail-m": ("bigscience open rail-m license",),
    "bigscience-bloom-rail-1.0": ("bigscience rail license",),
    "creativeml-openrail-m": ("creativeml open rail-m",),
    "openrail++": ("creativeml open rail++-m",),
    "bigcode-openrail-m": ("bigcode open rail-m",),
    "llama2": ("llama 2 community license agreement",),
    "llama3": ("meta llama 3 community license agreement",),
    "llama3.1": ("llama 3.1 community license agreement",),
    "llama3.2": ("llama 3.2 community license agreement",),
    "llama3.3": ("llama 3.3 community license agreement",),
    "llama4": ("llama 4 community license agreement",),
    "gemma": ("gemma terms of use",),
    "fair-noncommercial-research-license": ("fair noncommercial research license",),
    "apple-ascl": (_APPLE,),
    "nvidia-open-model-license": ("nvidia open model license agreement", "derivative models"),
}  # fmt: skip
_BSD_NAME_CLAUSE = re.compile(r"neither the names? of|may not be used to endorse or promote products")
_CC_TITLE = re.compile(
    r"(?<![\w-])attribution(?P<nc>-noncommercial)?(?P<rest>-sharealike|-no ?deriv(?:ative)?s)? "
    r"(?P<version>[1-4]\.[05])(?: (?:international|unported|generic))?(?: public license)?"
)
_CC_MARKS = ("creative commons", "creativecommons.org")
_TYPOGRAPHY = {0x2013: "-", 0x2014: "-", 0x2019: "'", 0x201C: '"', 0x201D: '"'}
_SPDX_TAG = re.compile(r"spdx-license-identifier: *([a-z0-9.+-]+)")


def recognise(text: str) -> tuple[str, ...]:
    """Returns the ids of all licences whose text this is; several where texts stand one after the other.

    Args:
        text (`str`):
            The file's contents.

    Returns:
        `tuple[str, ...]`: ids of the table, sorted; empty where nothing is recognised.
    """
    plain = _plain(text)
    found = {name for name, sentences in _ALL_OF.items() if all(sentence in plain for sentence in sentences)}
    found |= _creative_commons(plain) | _bsd(plain, found)
    tagged = (normalise(name) for name in _SPDX_TAG.findall(plain))
    return tuple(sorted(found | {name for name in tagged if name}))


def is_recognisable(license_id: str) -> bool:
    """Returns whether `recognise` knows the text of a licence."""
    return license_id in _ALL_OF or license_id.startswith(("cc-by", "cc0", "bsd-"))


def _plain(text: str) -> str:
    """Returns the text in lower case, without layout, comment signs and typographic variants."""
    text = text.lower().translate(_TYPOGRAPHY)
    return re.sub(r"[\s*#/=_>|]+", " ", text)


def _creative_commons(plain: str) -> set[str]:
    if not any(mark in plain for mark in _CC_MARKS):
        return set()
    found = {"cc0-1.0"} if "cc0 1.0 universal" in plain else set()
    for match in _CC_TITLE.finditer(plain):
        rest = match["rest"] or ""
        kind = "-sa" if "share" in rest else "-nd" if rest else ""
        found.add(f"cc-by{'-nc' if match['nc'] else ''}{kind}-{match['version']}")
    return found


def _bsd(plain: str, found: set[str]) -> set[str]:
    if _BSD not in plain or "bsd-3-clause-clear" in found:
        return set()
    if "all advertising materials mentioning features" in plain:
        return {"bsd"}
    return {"bsd-3-clause" if _BSD_NAME_CLAUSE.search(plain) else "bsd-2-clause"}
