"""What llama.cpp computes for an architecture beyond a plain decoder: facts that no file can change."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Graph:
    """The graph of one architecture.

    Attributes:
        activation: of the gate.
        scales: facts that are keys of the file; others are as usual.
        root_embedding: embeddings are multiplied by the root of their width.
        logit_softcap: a key bounds the logits.
        whole_heads: rows of q are as many as the hidden size.
        own_head: the output head is a tensor of its own, also where it equals the embedding.
        fused: gate and up are one matrix, q, k and v another.
        partial: a head may be rotated in part.
        frequencies: a tensor divides every frequency, as llama3 scaling needs it.
        long_frequencies: two such tensors, for short and for long contexts.
        windows: layers with a window have a rotation of their own; without a pattern all but every sixth have one.
        still_every: every so many layers one does not rotate; 0: all rotate.
    """

    activation: str = "silu"
    scales: frozenset[str] = frozenset()
    root_embedding: bool = False
    logit_softcap: bool = False
    whole_heads: bool = False
    own_head: bool = False
    fused: bool = False
    partial: bool = False
    frequencies: bool = False
    long_frequencies: bool = False
    windows: bool = False
    still_every: int = 0


_ATTENTION = frozenset({"attention_scale"})
_GRAPHS = {
    "llama": Graph(scales=_ATTENTION, frequencies=True),
    "granite": Graph(
        scales=_ATTENTION | {"embedding_scale", "residual_scale", "logit_scale"}, partial=True, frequencies=True
    ),
    "smollm3": Graph(scales=_ATTENTION, still_every=4),
    "gemma3": Graph(activation="gelu_pytorch_tanh", root_embedding=True, logit_softcap=True, windows=True),
    "phi3": Graph(whole_heads=True, fused=True, partial=True, long_frequencies=True),
    "olmo2": Graph(whole_heads=True, own_head=True),
    "qwen2": Graph(whole_heads=True),
}


def graph_of(architecture: str) -> Graph:
    """What is known of an architecture; a plain decoder if nothing is."""
    return _GRAPHS.get(architecture, Graph())
