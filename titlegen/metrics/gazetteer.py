"""Names that headlines in Taiwan carry: regions, townships, places abroad, authorities, parties, firms."""

import tomllib
from importlib import resources

_NAMES = tomllib.loads((resources.files("titlegen") / "metrics" / "gazetteer.toml").read_text(encoding="utf-8"))

REGIONS = frozenset(_NAMES["regions"].split())
"""Counties and cities."""
REGION_SHORT: dict[str, str] = _NAMES["region_short"]
"""A region by what headlines shorten it to."""
TOWNS = frozenset(_NAMES["towns"].split())
"""Townships and districts, without the 區, 鄉, 鎮 or 市 behind them."""
ABROAD = frozenset(_NAMES["abroad"].split())
"""Countries, continents and cities abroad."""
BODIES = frozenset(_NAMES["bodies"].split())
"""Authorities, parties, firms and universities."""
