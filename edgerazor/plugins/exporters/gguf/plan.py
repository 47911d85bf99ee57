"""Everything that will be in the file, or keeps a checkpoint from being one, known before a byte is written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from edgerazor.core.contracts import Checkpoint, ExportPlan, GGUFArchitecture, NamedTensors
from edgerazor.core.tensor import mean_bits
from edgerazor.plugins.exporters.gguf.architectures import architecture_of, describe_model, needed_names, tensor_name
from edgerazor.plugins.exporters.gguf.blocks import BLOCK_TYPES, BlockType
from edgerazor.plugins.exporters.gguf.choose import choose_type, match_rules
from edgerazor.plugins.exporters.gguf.rotation import Constants
from edgerazor.plugins.exporters.gguf.tensor_facts import TensorFacts, collect_tensor_facts
from edgerazor.plugins.exporters.gguf.tokenizer import describe_tokenizer
from edgerazor.plugins.exporters.gguf.tokenizer_proof import prove_tokenizer
from edgerazor.plugins.exporters.model_facts import stated_facts
from edgerazor.plugins.exporters.params import GGUFParams

F32, F16, BF16 = "F32", "F16", "BF16"
_TOWERS = "text model alone; vision and audio need a second file by llama.cpp's converter (--mmproj)"
_LONG = (
    "llama.cpp takes the rotary factors for long texts where its cache is longer than {original} positions, "
    "transformers where the text is"
)
_FLOATS = {torch.float32: (F32, 0, 4), torch.float16: (F16, 1, 2), torch.bfloat16: (BF16, 30, 2)}


@dataclass(frozen=True)
class Entry:
    """One tensor of the file.

    Attributes:
        name: of the tensor in the file.
        facts: of the tensor in the checkpoint.
        type_name, type_id: of the format.
        bytes: without padding.
        heads: of q and k whose rows are reordered; 0: rows keep their order.
        offset: added to every value (norms whose weight is stored less 1).
        first: row of the tensor in the checkpoint with which this one begins (a part of a fused matrix).
    """

    name: str
    facts: TensorFacts
    type_name: str
    type_id: int
    bytes: int
    heads: int = 0
    offset: float = 0.0
    first: int = 0

    @property
    def block_type(self) -> BlockType | None:
        """The packer; None for a tensor that stays float."""
        return BLOCK_TYPES.get(self.type_name)

    @property
    def bits(self) -> float:
        """Bits per weight in the file."""
        return 8 * self.bytes / self.facts.weights


@dataclass(kw_only=True)
class GGUFPlan(ExportPlan):
    """What `plan_export` finds: what the file will hold, and what of the checkpoint it will not."""

    architecture: GGUFArchitecture
    entries: list[Entry] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    constants: Constants = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tied: bool = False

    @property
    def quantized(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.facts.quantized]


def plan_export(checkpoint: Checkpoint, params: GGUFParams, tensors: NamedTensors) -> GGUFPlan:
    """Decide names, types and keys; arguments as for `Exporter.plan`.

    Raises:
        ExportError: llama.cpp has no such architecture; all other problems are collected in the plan.
    """
    return _Planner(checkpoint, params).plan(tensors)


class _Planner:
    def __init__(self, checkpoint: Checkpoint, params: GGUFParams):
        self.checkpoint, self.params = checkpoint, params
        self.facts = stated_facts(checkpoint)
        self.architecture = architecture_of(self.facts)
        self.result = GGUFPlan(architecture=self.architecture)
        self.problems = self.result.problems

    def plan(self, tensors: NamedTensors) -> GGUFPlan:
        context = self.params.context_length or self.facts.context
        if context > self.facts.context:
            self.problems.append(f"context_length {context}: the model has {self.facts.context} positions")
        described = describe_model(self.facts, self.architecture, context)
        self.result.metadata, self.result.constants, problems = described
        self.problems += problems
        if any(rope is not None and rope.kind == "longrope" for rope in self.facts.ropes):
            original = self.result.metadata.get(f"{self.architecture.name}.rope.scaling.original_context_length")
            self.result.notes.append(_LONG.format(original=original))
        every = collect_tensor_facts(self.checkpoint, tensors)
        inside = [facts for facts in every if not facts.name.startswith(self.facts.towers)]
        kept = {facts.name for facts in inside}
        self.result.left_out = [facts.name for facts in every if facts.name not in kept]
        if self.facts.towers:
            self.result.notes.append(_TOWERS)
        rules, problems = match_rules(self.params.types, inside)
        self.problems += problems
        for facts in self._without_equal_head(inside):
            for part, first in self._parts(facts):
                entry = self._entry(part, rules)
                if entry is not None:
                    self.result.entries.append(replace(entry, first=first))
        self.result.entries.sort(key=_place)
        self._check_complete()
        self._add_tokenizer()
        self._check_mixed()
        return self.result

    def _without_equal_head(self, tensors: list[TensorFacts]) -> list[TensorFacts]:
        """The head is dropped only if it equals the embedding, whatever the configuration says."""
        of = {facts.role.kind: facts for facts in tensors if facts.fingerprint and not facts.role.bias}
        head, embedding = of.get("head"), of.get("embedding")
        if self.architecture.own_head:
            if head is None:
                self.problems.append(f"llama.cpp's {self.architecture.name} needs an output head of its own")
            return tensors
        self.result.tied = head is None or (embedding is not None and head.fingerprint == embedding.fingerprint)
        if head is None and not self.facts.tied:
            self.problems.append("there is no output head, and config.json does not say tie_word_embeddings")
        return [facts for facts in tensors if not (self.result.tied and facts is head)]

    def _parts(self, facts: TensorFacts) -> Iterator[tuple[TensorFacts, int]]:
        """The tensor, or the parts of a fused one where the architecture has no such tensor, with their first rows."""
        parts = self.facts.fused.get(facts.role.kind, ())
        fits = sum(rows for _, rows in parts) == facts.shape[0]
        if not fits or tensor_name(facts.role, self.architecture) is not None:
            yield facts, 0
            return
        first = 0
        for kind, rows in parts:
            yield replace(facts, role=replace(facts.role, kind=kind), shape=(rows, *facts.shape[1:])), first
            first += rows

    def _entry(self, facts: TensorFacts, rules: Mapping[str, Any]) -> Entry | None:
        name = tensor_name(facts.role, self.architecture)
        if name is None:
            reason = "is a fused matrix without a place" if facts.role.kind in self.facts.fused else "has no place"
            self.problems.append(f"{facts.name}: {reason} in a GGUF of architecture {self.architecture.name}")
            return None
        if facts.scale_problem:
            self.problems.append(f"{facts.module}: {facts.scale_problem}")
            return None
        heads = self._heads(facts)
        if not facts.quantized:
            return self._float_entry(name, facts, heads)
        block_type, problem = choose_type(facts, self.params.profile, rules.get(facts.module))
        if block_type is None:
            self.problems.append(f"{facts.module}: {problem}")
            return None
        size = facts.shape[0] * block_type.row_bytes(facts.shape[1])
        return Entry(name, facts, block_type.name, block_type.id, size, heads)

    def _heads(self, facts: TensorFacts) -> int:
        if not self.architecture.permuted or facts.role.kind not in ("q", "k") or not self.result.metadata:
            return 0
        count = self.facts.heads if facts.role.kind == "q" else self.facts.kv_heads
        if facts.shape[0] != count * self.facts.head_dim:
            stated = f"config.json says {count} heads of {self.facts.head_dim}"
            self.problems.append(f"{facts.name}: has {facts.shape[0]} rows, {stated}")
        return count

    def _float_entry(self, name: str, facts: TensorFacts, heads: int) -> Entry | None:
        known = _FLOATS.get(facts.dtype) if facts.dtype else None
        if known is None:
            kind = str(facts.dtype).removeprefix("torch.")
            self.problems.append(f"{facts.name}: is {kind}; only float32, float16 and bfloat16 can be stored")
            return None
        # Vectors are F32 in every file; both 16-bit floats are exact in it.
        type_name, type_id, size = _FLOATS[torch.float32] if len(facts.shape) == 1 else known
        offset = self.facts.norm_offset if facts.role.kind.endswith("norm") else 0.0
        return Entry(name, facts, type_name, type_id, size * facts.weights, heads, offset)

    def _check_mixed(self) -> None:
        mixed = [entry for entry in self.result.quantized if entry.facts.mixed]
        if not mixed:
            return
        bits = sum(8 * entry.bytes for entry in mixed) / sum(entry.facts.weights for entry in mixed)
        widths: dict[int, int] = {}
        for entry in mixed:
            for qmax, count in (entry.facts.widths or {}).items():
                widths[qmax] = widths.get(qmax, 0) + count
        nominal = mean_bits(widths)
        preset = "1.88-bit-tensor" if nominal < 2.3 else "2.79-bit-tensor"
        if self.params.mixed_rows == "error":
            self.problems.append(
                f"{len(mixed)} tensors mix ternary and int4 rows and mixed_rows is 'error'; set 'widen' "
                f"({bits:.2f} bits) or train preset {preset}"
            )
        self.result.notes.append(
            f"{len(mixed)} tensors mix rows: nominal {nominal:.2f} bits, in this file {bits:.2f}: GGUF stores one type "
            f"per tensor; preset {preset} has the same budget with one width per tensor"
        )

    def _check_complete(self) -> None:
        counted: dict[str, int] = {}
        for entry in self.result.entries:
            counted[entry.name] = counted.get(entry.name, 0) + 1
        self.problems += [f"{name}: {count} tensors play this part" for name, count in counted.items() if count > 1]
        if self.problems:
            return
        layers = self.facts.layers
        missing = [name for name in needed_names(self.facts, self.architecture) if name not in counted]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            self.problems.append(f"the checkpoint has no tensor for {', '.join(missing[:5])}{more}")
        stray = [entry.facts.name for entry in self.result.entries if (entry.facts.role.layer or 0) >= layers]
        self.problems += [f"{name}: config.json says {layers} layers" for name in stray]

    def _add_tokenizer(self) -> None:
        embedding = next((entry.facts for entry in self.result.entries if entry.facts.role.kind == "embedding"), None)
        stated = self.facts.vocab
        size = embedding.shape[0] if embedding else stated
        if size != stated:
            self.problems.append(f"the embedding has {size} rows, config.json says vocab_size {stated}")
        folder = self.checkpoint.folder
        described = describe_tokenizer(folder, self.checkpoint.config, size)
        if not (described.problems or self.problems):
            tolerant = self.params.tokenizer_differences == "note"
            described = prove_tokenizer(folder, described, tolerant=tolerant)
        self.problems += described.problems
        self.result.notes += described.notes
        self.result.metadata |= described.keys


def _place(entry: Entry) -> tuple[int, int, str]:
    """Embedding, layers by number, then the rest: the order in which they are used."""
    role = entry.facts.role
    return (0 if role.kind == "embedding" else 2 if role.layer is None else 1, role.layer or 0, entry.name)
