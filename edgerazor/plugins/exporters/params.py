"""Parameters of the built-in exporters."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from edgerazor.schemas.base import Schema, problem
from edgerazor.schemas.components import ExporterParams

BlockName = Literal["Q4_0", "Q4_K", "Q8_0", "TQ1_0", "TQ2_0", "Q2_K", "Q2_0"]
Profile = Literal["size", "speed_cpu", "compatible"]


class TypeRule(Schema):
    """Quantized matrices whose module name matches one of the globs are stored as this block type."""

    title: ClassVar[str] = "type rule"

    match: Annotated[tuple[str, ...], Field(min_length=1)]
    type: BlockName

    @field_validator("match", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _single_pattern(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class GGUFParams(ExporterParams):
    """One file for llama.cpp, with the codes and scales of the checkpoint in it unchanged."""

    target: ClassVar[str] = "edgerazor.plugins.exporters.gguf.exporter:GGUFExporter"
    suffixes: ClassVar[tuple[str, ...]] = (".gguf",)
    magic: ClassVar[bytes] = b"GGUF"
    runtime: ClassVar[str] = "edgerazor.plugins.exporters.gguf.runtime:LlamaCppRuntime"
    suits: ClassVar[str] = "laptops, phones, boards and GPUs, in llama.cpp and what is built on it"
    name: Literal["gguf"] = "gguf"
    profile: Annotated[
        Profile,
        Field(description="size: smallest file; speed_cpu: fastest on x86; compatible: types that every backend has."),
    ] = "compatible"
    mixed_rows: Annotated[
        Literal["widen", "error"],
        Field(description="Matrices of ternary and int4 rows: store all rows as int4, or refuse the checkpoint."),
    ] = "widen"
    context_length: Annotated[int | None, Field(gt=0, description="Positions; null: those of the model.")] = None
    tokenizer_differences: Annotated[
        Literal["error", "note"],
        Field(description="Texts in which llama.cpp finds other tokens: refuse the checkpoint, or note them."),
    ] = "error"
    types: Annotated[
        tuple[TypeRule, ...], Field(description="Block types by module name, before the profile; first match wins.")
    ] = ()


class ONNXParams(ExporterParams):
    """A folder for ONNX Runtime and onnxruntime-genai, with the codes and scales of the checkpoint in it unchanged."""

    target: ClassVar[str] = "edgerazor.plugins.exporters.onnx.exporter:ONNXExporter"
    marker: ClassVar[str] = "genai_config.json"
    other_markers: ClassVar[tuple[str, ...]] = ("edgerazor_onnx.json",)  # image classifiers have no settings of genai
    runtime: ClassVar[str] = "edgerazor.plugins.exporters.onnx.classifier_runtime:open_folder"
    suits: ClassVar[str] = "x86 processors, in ONNX Runtime; rows of two widths keep their true size in no other"
    name: Literal["onnx"] = "onnx"
    ternary_storage: Annotated[
        Literal["2bit", "4bit"],
        Field(description="2bit: small, fast on x86 with AVX-512 VNNI; 4bit: larger, fast on every processor."),
    ] = "2bit"
    accuracy_level: Annotated[
        Literal[0, 4], Field(description="4: int8 activations, for use; 0: float32 activations, for comparing.")
    ] = 4
    logits: Annotated[
        Literal["all", "last"], Field(description="all: of every position; last: of the last one, faster for chat.")
    ] = "all"
    context_length: Annotated[
        int | None, Field(gt=0, description="Positions; null: those of the model, at most 8192.")
    ] = None
    portable: Annotated[
        bool, Field(description="Operators of the ONNX standard only, for other engines than ONNX Runtime.")
    ] = False


class CompressedTensorsParams(ExporterParams):
    """A folder for vLLM, SGLang and Transformers, with the codes and scales of the checkpoint in it unchanged."""

    target: ClassVar[str] = "edgerazor.plugins.exporters.compressed_tensors.exporter:CompressedTensorsExporter"
    marker: ClassVar[str] = "edgerazor_compressed_tensors.json"
    runtime: ClassVar[str] = "edgerazor.plugins.exporters.compressed_tensors.runtime:CompressedTensorsRuntime"
    suits: ClassVar[str] = "GPU and CPU servers, in vLLM, SGLang and Transformers without this package"
    name: Literal["compressed-tensors"] = "compressed-tensors"
    profile: Annotated[
        Literal["w4", "w2"],
        Field(description="w4: at least 4 bits, for every engine; w2: ternary matrices at 2 bits."),
    ] = "w4"
    embedding: Annotated[
        Literal["keep", "int4"],
        Field(description="A quantized embedding: kept at 16 bit, for every engine; int4: packed like other matrices."),
    ] = "keep"
    untie: Annotated[
        bool, Field(description="A quantized head that is the embedding becomes a packed matrix of its own.")
    ] = True
    activations: Annotated[
        Literal["recipe", "none"],
        Field(description="recipe: int8 per token where they were trained so; none: always 16 bit."),
    ] = "recipe"
    dtype: Annotated[
        Literal["float16", "bfloat16"],
        Field(description="Of scales and of what is not quantized; bfloat16 if it holds every scale."),
    ] = "float16"

    @model_validator(mode="after")
    def _check_tie(self) -> Self:
        if self.embedding == "int4" and not self.untie:
            raise problem("embedding int4 needs untie: true; no engine computes logits with a packed embedding")
        return self


class MLXParams(ExporterParams):
    """A folder for mlx_lm, with the codes and scales of the checkpoint in it unchanged."""

    target: ClassVar[str] = "edgerazor.plugins.exporters.mlx.exporter:MLXExporter"
    marker: ClassVar[str] = "edgerazor_mlx.json"
    runtime: ClassVar[str] = "edgerazor.plugins.exporters.mlx.runtime:MLXRuntime"
    suits: ClassVar[str] = "Macs with Apple silicon, in mlx_lm and what is built on it"
    name: Literal["mlx"] = "mlx"
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        Field(description="Of scales and all else, and of MLX's arithmetic; float32: its weights are exact."),
    ] = "float32"
