#!/usr/bin/env bash
# Everything that needs a CUDA device, in one go of about 15 minutes, on a machine without network:
#
#     scripts/gpu_check.sh OUT        figures, logs and the packed student in pieces under 16 MiB go to OUT
#
# The machine has Python, torch, triton and transformers; wheels that are missing lie in WHEELS. TEACHER is the folder of
# SmolLM2-135M-Instruct; its model.safetensors may be there as model.safetensors.xz.part-*. DATA holds rows to train on,
# TASKS the rows of piqa, arc_easy and blimp. MINUTES is for training, half of it for each width.
# What was done is not done again, so a second run goes on: one file OUT/done/STAGE for each. STAGES names those to run.
# DEVICE=cpu goes through the same stages with tiny shapes, to see that the script runs.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${1:?usage: scripts/gpu_check.sh OUT}")
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
WHEELS=${WHEELS:-wheels}
TEACHER=${TEACHER:-teacher}
DATA=${DATA:-examples/smollm2/dialogues.jsonl.gz}
TASKS=${TASKS:-shared/eval}
MINUTES=${MINUTES:-8}
STAGES=${STAGES:-install tests benchmarks teacher round train tasks pieces}
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1
mkdir -p "$OUT/done"

install() {
	[ -d "$WHEELS" ] || return 0
	"$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" "$WHEELS"/*.whl
}

tests() {
	local only=()
	if [ "$DEVICE" = cpu ]; then only=(--collect-only); fi
	"$PYTHON" -m pytest -m gpu -p no:cacheprovider "${only[@]}" tests
}

benchmarks() {
	local failed=0 quick=(--rounds 3)
	if [ "$DEVICE" = cpu ]; then quick=(--quick --threads 1); fi
	for script in fake_quantization logits_loss training_step accumulation; do
		"$PYTHON" "benchmarks/$script.py" --device "$DEVICE" "${quick[@]}" --output "$OUT/$script.json" || failed=1
	done
	return $failed
}

teacher() {
	if ls "$TEACHER"/model.safetensors.xz.part-* >/dev/null 2>&1; then
		cat "$TEACHER"/model.safetensors.xz.part-* | xz --decompress >"$TEACHER/model.safetensors" || return 1
	fi
	[ -f "$TEACHER/model.safetensors" ]
}

round() {
	for bits in 1.88 1.58; do
		pack=("$PYTHON" -m edgerazor pack "$TEACHER" --preset "$bits-bit")
		"${pack[@]}" --output "$OUT/rounded-$bits" || return 1
		"${pack[@]}" --output "$OUT/calibrated-$bits" --calibrate "$DATA" || return 1
	done
}

train() {
	for bits in 1.88 1.58; do
		cat >"$OUT/recipe-$bits.yaml" <<-YAML
			model: {name_or_path: $TEACHER}
			preset: $bits-bit
			data: {sources: [$DATA], held_out: 0.1, sequence_length: 512}
			training:
			  learning_rate: 1.0e-4
			  lr_scheduler_type: cosine
			  max_seconds: $((MINUTES * 30))
			  num_train_epochs: 10000
			  per_device_train_batch_size: 8
			  bf16: $([ "$DEVICE" = cpu ] && echo false || echo true)
			  use_cpu: $([ "$DEVICE" = cpu ] && echo true || echo false)
			evaluation: {batches: 8}
		YAML
		resume=()
		ls "$OUT/run-$bits/checkpoints"/checkpoint-* >/dev/null 2>&1 && resume=(--resume)
		[ -d "$OUT/run-$bits/packed" ] \
			|| "$PYTHON" -m edgerazor train "$OUT/recipe-$bits.yaml" --output "$OUT/run-$bits" "${resume[@]}" || return 1
	done
}

tasks() {
	local failed=0
	for bits in 1.88 1.58; do
		for model in "$OUT/run-$bits/packed" "$OUT/rounded-$bits" "$OUT/calibrated-$bits"; do
			"$PYTHON" -m edgerazor evaluate "$model" --tasks piqa,arc_easy,blimp --data "$TASKS" --teacher "$TEACHER" \
				--output "$OUT/tasks-$bits-$(basename "$model").json" || failed=1
		done
	done
	return $failed
}

pieces() {
	mkdir -p "$OUT/pieces"
	tar --create --xz --directory "$OUT/run-1.88" packed | split --bytes 15M - "$OUT/pieces/student-1.88.tar.xz.part-"
}

failed=()
for stage in $STAGES; do
	[ -e "$OUT/done/$stage" ] && continue
	echo "== $stage"
	if "$stage" >"$OUT/$stage.log" 2>&1; then touch "$OUT/done/$stage"; else failed+=("$stage"); fi
	tail -n 5 "$OUT/$stage.log"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}; their logs are in $OUT" >&2; exit 1; }
