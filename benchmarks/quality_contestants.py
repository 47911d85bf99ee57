"""The contestants of the laboratory: each is a small change of the published recipe (docs/design/METHOD.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from original_config import NAME as ORIGINAL

Kind = Literal["rounded", "gptq", "calibrated", "trained", "original"]
BODIES: Mapping[float, Mapping[str, Any]] = {
    4: {"name": "int", "bits": 4},
    3: {"name": "int", "bits": 3},
    2.79: {"name": "sqmp", "high_ratio": 0.5},
    2: {"name": "int", "bits": 2, "symmetric": False},
    1.88: {"name": "sqmp", "high_ratio": 0.125},
    1.58: {"name": "ternary"},
}
LEARNING: tuple[Kind, ...] = ("trained", "original")
PUBLISHED, OURS = "published", "closer states"
WITH_SCALES = f"{OURS}, trained scales"


@dataclass(frozen=True)
class Contestant:
    """One way to make a low-bit model of the teacher.

    Attributes:
        method: what differs, as the table says it.
        bits: nominal width of the decoder's matrices; embedding and head are int4 in all but the mixed ones.
        kind: "trained", or by the "original" release; the others are not trained.
        changes: values of the recipe by dotted key path; None removes the key.
        times: how often the usual number of steps it is trained.
        data: text by people, by the teacher, or as many documents of each.
        signed: integers of 4 bits have scales of either sign and sixteen codes.
        allocated: `training.allocation`, by which the matrices get their widths; None for the recipe's own.
    """

    method: str
    bits: float
    kind: Kind = "trained"
    changes: Mapping[str, Any] = field(default_factory=dict)
    times: float = 1
    data: Literal["human", "teacher", "mixed"] = "human"
    signed: bool = False
    allocated: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """As in the table."""
        text = "" if self.data == "human" else f", {self.data} text"
        return f"{self.method}{text}, {self.bits:g} bit"

    @property
    def slug(self) -> str:
        """A file name."""
        return "".join(letter if letter.isalnum() or letter == "." else "-" for letter in self.name.lower())

    @property
    def depends_on_seed(self) -> bool:
        return self.kind != "rounded"


def _loss(name: str, **options: Any) -> dict[str, Any]:
    return {"distillation.losses": [{"name": name, "weight": 2.0, **options}, "feature"]}


def _layers(selector: Mapping[str, Any] | None) -> dict[str, Any]:
    if selector is None:
        return {"distillation.losses": ["eakld"]}
    return {"distillation.losses": ["eakld", {"name": "feature_mse", "weight": 0.1, "layers": dict(selector)}]}


def _closer(**options: Any) -> dict[str, Any]:
    """What our own presets change."""
    return {"distillation.losses": ["eakld", {"like": "feature", "relative": True, "weight": 30.0, **options}]}


QAT = {"distillation": None}
WIDE_CACHE = {"quantization.kv_cache": None}  # as the original release is trained here
PURE = {"distillation.task_weight": 0.0, "distillation.losses": [{"name": "forward_kl", "weight": 2.0}]}
COOLDOWN = {
    "training.lr_scheduler_type": "warmup_stable_decay",
    "training.lr_scheduler_kwargs": {"num_decay_steps": "half", "decay_type": "linear"},
}
LOSSES = {
    "forward KL": _loss("forward_kl"),
    "reverse KL": _loss("reverse_kl"),
    "JSD": _loss("jsd"),
    "CAKLD": _loss("cakld"),
}
SELECTORS = {
    "no layer": _layers(None),
    "last layer": _layers({"name": "fixed", "layers": [-1]}),
    "all layers": _layers({"name": "all"}),
    "low layer": _layers({"name": "fixed", "layers": ["low"]}),
    "middle layer": _layers({"name": "fixed", "layers": ["mid"]}),
}
START = {"training.start": "calibrated"}
NARROW = (1.88, 1.58)
SCALES = {f"learned scales, rate {rate:g}": {"training.scale_learning_rate": rate} for rate in (0.003, 0.01, 0.03)}
LEARNED = SCALES["learned scales, rate 0.01"]
BOTH = LEARNED | PURE
CLOSER = _closer()
_OF_32 = {"name": "int", "group_size": 32}
SIGNED = {"bits": 4, "symmetric": False, "scale": "signed_absmax"}
MIX = {  # the preset 4-bit-mixed
    "quantization.weights": [
        {"match": ["*.embed_tokens", "lm_head", "*.k_proj", "*.v_proj"], "quantizer": _OF_32 | {"bits": 8}},
        {"match": "*", "quantizer": _OF_32 | SIGNED},
    ],
    "quantization.activations": _OF_32 | {"bits": 8},
}
BY_NAME = {  # the preset 1.88-bit-tensor, in groups as all others have
    "quantization.weights": [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int"} | SIGNED},
        {"match": ["*.k_proj", "*.v_proj"], "quantizer": {"name": "int"} | SIGNED},
        {"match": "*", "quantizer": {"name": "ternary"}},
    ]
}
FREE = {"free": True}
WHOLE = FREE | {"candidates": ["ternary", "int4"]}
PRESET = FREE | {"candidates": ["ternary", {"name": "int"} | SIGNED]}
WITH_THREE = FREE | {"candidates": ["ternary", *({"name": "int"} | SIGNED | {"bits": bits} for bits in (3, 4))]}
ALLOCATIONS = {"shares of rows, tied": {}, "shares of rows": FREE, "rows": {"rows": True}, "15 codes": WHOLE}
MIXED = (1.88, 2.79)  # where there are two widths to choose from
CONTESTANTS: tuple[Contestant, ...] = (
    *(Contestant("rounding", bits, "rounded") for bits in BODIES),
    *(Contestant("GPTQ", bits, "gptq") for bits in BODIES),
    *(Contestant("calibrated rounding", bits, "calibrated") for bits in BODIES),
    *(Contestant(PUBLISHED, bits) for bits in (1.88, 1.58, 2.79, 4)),
    *(Contestant(ORIGINAL, bits, "original") for bits in (1.88, 1.58, 2.79, 4)),
    *(
        Contestant(f"{PUBLISHED}, without int8 keys and values", bits, changes=WIDE_CACHE)
        for bits in (1.88, 1.58, 2.79, 4)
    ),
    *(Contestant("cross entropy alone", bits, changes=QAT) for bits in NARROW),
    *(Contestant(f"{name} for EAKLD", 1.88, changes=changes) for name, changes in LOSSES.items()),
    *(Contestant(f"{name} for LAFD", 1.88, changes=changes) for name, changes in SELECTORS.items()),
    *(Contestant("forward KL alone", bits, changes=PURE) for bits in NARROW),
    *(Contestant("calibrated start", bits, changes=START) for bits in NARROW),
    *(Contestant("calibrated start, forward KL alone", bits, changes=START | PURE) for bits in NARROW),
    *(Contestant("decay in the second half", bits, changes=COOLDOWN) for bits in NARROW),
    *(Contestant("twice the learning rate", bits, changes={"training.learning_rate": 2.0}) for bits in NARROW),
    *(Contestant(name, bits, changes=changes) for name, changes in SCALES.items() for bits in NARROW),
    *(Contestant("learned scales, rate 0.01", bits, changes=LEARNED) for bits in (2.79, 4)),
    *(Contestant("calibrated start, learned scales", bits, changes=START | LEARNED) for bits in (1.88, 1.58, 2.79, 4)),
    *(Contestant("learned scales, forward KL alone", bits, changes=BOTH) for bits in (1.88, 1.58, 2.79, 4)),
    *(Contestant(OURS, bits, changes=CLOSER) for bits in (1.88, 1.58, 2.79, 4)),
    *(Contestant(WITH_SCALES, bits, changes=LEARNED | CLOSER) for bits in (1.88, 1.58, 2.79, 4)),
    *(Contestant(f"{OURS}, signed scales", bits, changes=CLOSER, signed=True) for bits in (1.88, 1.58, 2.79, 4)),
    *(Contestant("rounding, allocated", bits, "rounded", allocated=WHOLE) for bits in MIXED),
    *(Contestant("calibrated rounding, allocated", bits, "calibrated", allocated=WHOLE) for bits in MIXED),
    *(Contestant(f"{PUBLISHED}, allocated", bits, allocated=WHOLE) for bits in MIXED),
    *(
        Contestant(f"{OURS}, signed scales, allocated", bits, changes=CLOSER, signed=True, allocated=PRESET)
        for bits in MIXED
    ),
    *(
        Contestant(
            f"{OURS}, calibrated start, signed scales, allocated{name}",
            bits,
            changes=START | CLOSER,
            signed=True,
            allocated=allocated,
        )
        for name, allocated in (("", PRESET), (" with 3 bits", WITH_THREE))
        for bits in MIXED
    ),
    *(
        Contestant(f"{OURS}{name}, signed scales, k and v of 4 bits", 1.88, changes=changes | CLOSER | BY_NAME)
        for name, changes in (("", {}), (", calibrated start", START))
    ),
    *(
        Contestant("calibrated rounding, allocated with 3 bits", bits, "calibrated", allocated=WITH_THREE)
        for bits in MIXED
    ),
    *(
        Contestant(
            f"{OURS}, signed scales, allocated: {name}", 1.88, changes=CLOSER, signed=True, allocated=ALLOCATIONS[name]
        )
        for name in ALLOCATIONS
    ),
    *(
        Contestant(f"{OURS}, calibrated start, signed scales", bits, changes=START | CLOSER, signed=True)
        for bits in (1.58, 4)
    ),
    Contestant(
        f"{WITH_SCALES}, signed scales, allocated", 1.88, changes=LEARNED | CLOSER, signed=True, allocated=PRESET
    ),
    Contestant(
        f"{WITH_SCALES}, signed scales, allocated: shares of rows, 10 x tokens",
        1.88,
        changes=LEARNED | CLOSER,
        times=10,
        signed=True,
        allocated=FREE,
    ),
    Contestant("rounding, signed scales", 4, "rounded", signed=True),
    Contestant("calibrated rounding, signed scales", 4, "calibrated", signed=True),
    *(
        Contestant(f"{WITH_SCALES}, {name}", 1.88, changes=LEARNED | _closer(layers={**selector}))
        for name, selector in (("last layer", {"name": "fixed", "layers": [-1]}), ("all layers", {"name": "all"}))
    ),
    *(Contestant(f"cross entropy alone, {times} x tokens", 1.88, changes=QAT, times=times) for times in (4, 10)),
    *(
        Contestant(f"{WITH_SCALES}, rate 0.003", bits, changes=SCALES["learned scales, rate 0.003"] | CLOSER)
        for bits in (1.88, 1.58)
    ),
    *(
        Contestant(f"{WITH_SCALES}, {times} x tokens", bits, changes=LEARNED | CLOSER, times=times)
        for times in (10, 40)
        for bits in (1.88, 4)
    ),
    *(
        Contestant(
            f"{OURS}, calibrated start, rate {rate:g}, {times} x tokens",
            4,
            changes=START | CLOSER | {"training.learning_rate": rate},
            times=times,
        )
        for rate, times in ((0.1, 10), (0.03, 10), (0.1, 40))
    ),
    Contestant("rounding, mixed", 4, "rounded", MIX),
    Contestant("calibrated rounding, mixed", 4, "calibrated", MIX),
    Contestant("published, mixed", 4, changes=MIX),
    *(
        Contestant(
            f"{OURS}, calibrated start, rate 0.1, {times} x tokens, mixed",
            4,
            changes=MIX | START | CLOSER | {"training.learning_rate": 0.1},
            times=times,
        )
        for times in (1, 10)
    ),
    *(Contestant(PUBLISHED, 1.88, data=data) for data in ("teacher", "mixed")),
    *(
        Contestant(f"{name} for {published}", 1.88, changes=changes, data=data)
        for data in ("teacher", "mixed")
        for published, others in (("EAKLD", LOSSES), ("LAFD", SELECTORS))
        for name, changes in others.items()
    ),
)
