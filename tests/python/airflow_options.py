"""Prints `api/src/airflow_options/known.json`: the options of airflow.cfg, as the installed Airflow describes them.

{section: {option: {"type", "sensitive"}}} for options; `type` is "string", "integer", "float" or "boolean". An option
with another name in this version has {"renamed": "section.option"} instead. Sections of providers that are not
installed are left out.
"""

from __future__ import annotations

import json
from typing import Any


def known_options() -> dict[str, dict[str, dict[str, Any]]]:
    """All sections and options, by name."""
    from airflow.configuration import conf

    sections: dict[str, dict[str, dict[str, Any]]] = {}
    for section, description in conf.configuration_description.items():
        for option, described in description["options"].items():
            # Providers that are not installed have fallback values without types.
            if not described.get("type"):
                continue
            entry = {"type": described["type"]} | ({"sensitive": True} if described.get("sensitive") else {})
            sections.setdefault(section, {})[option] = entry
    for (section, option), (old_section, old_option, _) in conf.deprecated_options.items():
        if option in sections.get(section, {}):
            sections.setdefault(old_section, {}).setdefault(old_option, {"renamed": f"{section}.{option}"})
    return {section: dict(sorted(sections[section].items())) for section in sorted(sections)}


def main() -> None:
    sections = {
        section: "{\n" + ",\n".join(f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in options.items())
        for section, options in known_options().items()
    }
    print("{\n" + ",\n".join(f"  {json.dumps(section)}: {text}\n  }}" for section, text in sections.items()) + "\n}")


if __name__ == "__main__":
    main()
