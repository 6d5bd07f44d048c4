"""The closed lists the lab draws from: drug names, conditions and number ranges."""

from __future__ import annotations

from typing import Final

PREFIXES: Final = (
    "Zen", "Mor", "Fal", "Kel", "Bri", "Tor", "Lux", "Ned", "Pra", "Qui",
    "Rov", "Sal", "Tam", "Vel", "Wex", "Yar", "Dor", "Gan", "Hal", "Jov",
)  # fmt: skip
SUFFIXES: Final = (
    "tide", "mab", "pril", "statin", "cillin", "olol", "azole", "mycin",
    "xaban", "gliptin", "sartan", "vir", "zine", "parin", "dronate", "fenac",
)  # fmt: skip
DRUG_NAMES: Final = tuple(prefix + suffix for prefix in PREFIXES for suffix in SUFFIXES)

CONDITIONS: Final = (
    "epilepsy", "gout", "asthma", "migraine", "glaucoma", "porphyria", "angina", "psoriasis",
)  # fmt: skip

DOSES_MG_PER_KG: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20)
WEIGHTS_KG: Final = tuple(range(30, 121, 10))
CAPS_MG: Final = tuple(range(100, 1501, 100))
RENAL_LIMITS: Final = (30, 40, 50, 60)
EGFRS: Final = tuple(range(15, 96, 5))
SUBSTITUTES_MG: Final = tuple(range(50, 501, 50))
DAILY_COUNTS: Final = (2, 3, 4)
