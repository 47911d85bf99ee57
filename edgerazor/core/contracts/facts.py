"""What a model family is, stated once: sizes, positions, norms and names that exporters read instead of the family.

Facts come from config.json alone and need no torch. An exporter that cannot express a fact refuses the model by that
fact, so a family that states its facts reaches every exporter that can express them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NORM_ROLES: Mapping[str, tuple[str, ...]] = {
    "pre": ("attention_norm", "mlp_norm"),
    "post": ("attention_output_norm", "mlp_output_norm"),
    "sandwich": ("attention_norm", "attention_output_norm", "mlp_norm", "mlp_output_norm"),
}


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of a layer.

    Attributes:
        base: `rope_theta`, the base of the geometric series of wavelengths.
        kind: how frequencies are scaled, as transformers names it: "default", "linear", "yarn", "llama3", ...
        scaling: parameters of that scaling, as transformers names them: `factor`, `original_max_position_embeddings`,
            `short_factor` and `long_factor` (of kind "longrope"), `attention_factor`, ...
        partial: share of a head's columns that is rotated, over 0 and at most 1.
        sections: of multimodal positions: pairs of columns that turn with time, height and width; empty for text.
    """

    base: float
    kind: str = "default"
    scaling: Mapping[str, Any] = field(default_factory=dict)
    partial: float = 1.0
    sections: tuple[int, ...] = ()


@dataclass(frozen=True)
class GGUFArchitecture:
    """What llama.cpp calls a family, what its loader expects, and what its graph computes beyond a plain decoder.

    Attributes:
        name: value of `general.architecture`, one of `gguf.MODEL_ARCH_NAMES`.
        permuted: rows of q and k are reordered in the file, since rotation there turns neighbouring columns.
        biases: roles whose bias llama.cpp reads for this architecture.
        activation: of the gate.
        scales: facts that are keys of the file (`"residual_scale"`); others must be as usual.
        root_embedding: embeddings are multiplied by the root of their width.
        logit_softcap: a key bounds the logits.
        whole_heads: rows of q are as many as the hidden size.
        own_head: the output head is a tensor of its own, also where it equals the embedding.
        fused: gate and up are one matrix, q, k and v another.
        partial_rotation: a head may be rotated in part.
        frequencies: a tensor divides every frequency, as llama3 scaling needs it.
        long_frequencies: two such tensors, for short and for long contexts.
        window_period: layers with a window have a rotation of their own; every so many layers one sees all positions
            where the file states no other pattern; 0: no layer has a window.
        unrotated_every: every so many layers one does not rotate; 0: all rotate.
    """

    name: str
    permuted: bool = False
    biases: frozenset[str] = frozenset()
    activation: str = "silu"
    scales: frozenset[str] = frozenset()
    root_embedding: bool = False
    logit_softcap: bool = False
    whole_heads: bool = False
    own_head: bool = False
    fused: bool = False
    partial_rotation: bool = False
    frequencies: bool = False
    long_frequencies: bool = False
    window_period: int = 0
    unrotated_every: int = 0


@dataclass(frozen=True)
class ImageFacts:
    """What a model of images is given, `[batch, channels, height, width]`.

    Attributes:
        any_size: height and width are the usual ones, and others will do.
    """

    channels: int
    height: int
    width: int
    any_size: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The model of a checkpoint, as its configuration describes it. Sizes are numbers of elements.

    Attributes:
        layers: decoder layers, each counted once; of an image model its layers or stages.
        hidden: width of the residual stream.
        intermediate: rows of `gate` and `up`, columns of `down`.
        heads, kv_heads: attention heads, and those of keys and values; 0 without attention.
        head_dim: width of a head.
        vocab: rows of the embedding; classes of a classifier.
        context: positions that the model was made for; of an image model those of its hidden states.
        tied: the embedding is the output head, too.
        norm_eps: added to the mean square in every RMS norm.
        ropes: rotary embedding of each layer, None where a layer does not rotate.
        windows: last positions that each layer attends to, None for all of them.
        activation: of the gate, as transformers names it.
        qk_norm: norms of queries and keys: none, over each head, or over all heads at once.
        norms: where the norms of a layer stand: before attention and MLP, behind them, or both.
        norm_offset: added to the stored weight of every norm (Gemma: 1).
        biases: roles that have a bias: "q", "k", "v", "o", "gate", "up", "down", "head".
        fused: matrices that lie in one parameter: `{its role: ((role, rows), ...)}`, in the order of the rows; each is
            quantized as if it stood alone.
        experts: experts of a layer's MLP; 0 for a dense model.
        repeats: times that each layer runs in a row.
        towers: prefixes of the parameters of other models in the checkpoint, such as "model.visual.".
        embedding_scale: what looked-up embeddings are multiplied by.
        attention_scale: what query times key is multiplied by; None is 1 / sqrt(head_dim).
        residual_scale: what the outputs of attention and MLP are multiplied by before they are added.
        logit_scale: what logits are multiplied by.
        logit_softcap, attention_softcap: c of c * tanh(x / c) on logits and on attention scores; None for neither.
        gguf: llama.cpp's architecture; None if it has none.
        genai: `model.type` of onnxruntime-genai; None takes the model type of config.json.
        mlx: model class of mlx_lm; None takes the model type of config.json.
        image: what it is given, if it classifies images; None for a language model.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    tied: bool
    norm_eps: float
    ropes: tuple[Rope | None, ...]
    windows: tuple[int | None, ...]
    activation: str = "silu"
    qk_norm: Literal["none", "per_head", "all_heads"] = "none"
    norms: Literal["pre", "post", "sandwich"] = "pre"
    norm_offset: float = 0.0
    biases: frozenset[str] = frozenset()
    fused: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    experts: int = 0
    repeats: int = 1
    towers: tuple[str, ...] = ()
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    attention_softcap: float | None = None
    gguf: GGUFArchitecture | None = None
    genai: str | None = None
    mlx: str | None = None
    image: ImageFacts | None = None

    @property
    def rope(self) -> Rope | None:
        """The rotary embedding of all layers; None if layers differ, or if none rotates."""
        return self.ropes[0] if self.ropes and all(rope == self.ropes[0] for rope in self.ropes) else None

    def shape(self, role: str) -> tuple[int, ...] | None:
        """Shape of the weight that plays a role; None for a role that these facts say nothing of."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        per_head = self.qk_norm == "per_head"
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocab, self.hidden),
            "head": (self.vocab, self.hidden),
            "q": (queries, self.hidden),
            "k": (keys, self.hidden),
            "v": (keys, self.hidden),
            "o": (self.hidden, queries),
            "q_norm": (self.head_dim if per_head else queries,),
            "k_norm": (self.head_dim if per_head else keys,),
            "gate": (self.intermediate, self.hidden),
            "up": (self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
            **dict.fromkeys((*NORM_ROLES["sandwich"], "final_norm"), (self.hidden,)),
        }
        if role in self.fused and not self.experts:
            return sum(rows for _, rows in self.fused[role]), self.hidden
        return shapes.get(role)

    def layer_roles(self) -> tuple[str, ...]:
        """Roles of the weights that every layer of a dense model has, in the order in which they are used.

        Fused matrices are named one by one.
        """
        norms = NORM_ROLES[self.norms]
        around_attention = tuple(norm for norm in norms if norm.startswith("attention"))
        around_mlp = tuple(norm for norm in norms if norm.startswith("mlp"))
        of_heads = () if self.qk_norm == "none" else ("q_norm", "k_norm")
        return (*around_attention, "q", "k", "v", "o", *of_heads, *around_mlp, "gate", "up", "down")
