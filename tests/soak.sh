#!/usr/bin/env bash
# Every fault scenario ten times in a row, then the nemesis mix for thirty minutes. Results go to a file, one JSON object a
# line; started again it goes on where it stopped, as long as the commit is the same. Needs root, as tests/cluster does.
#   SOAK_ROUNDS=10 SOAK_MIX_SECONDS=1800 SOAK_RELEASE=1 SOAK_RESULTS=target/soak.ndjson tests/soak.sh [s01 s02 … mix]
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${SOAK_ROUNDS:-10}
mix_seconds=${SOAK_MIX_SECONDS:-1800}
results=${SOAK_RESULTS:-target/soak.ndjson}
logs=target/soak
profile=()
[[ -z ${SOAK_RELEASE:-} ]] || profile=(--release)
commit=$(git rev-parse --short HEAD)
[[ -z $(git status --porcelain --untracked-files=no) ]] || commit+=-changed
mkdir -p "$logs" "$(dirname "$results")"
touch "$results"

cargo test --locked "${profile[@]}" --test cluster --no-run
run() { cargo test --locked --quiet "${profile[@]}" --test cluster -- "$@"; }
mapfile -t scenarios < <(run --list 2>/dev/null | sed -n 's/^\(.*::s[0-9][0-9]_.*\): test$/\1/p' | sort -t: -k3)
((${#scenarios[@]} == 32)) || { echo "soak: ${#scenarios[@]} scenarios, not 32" >&2; exit 1; }

wanted() {
    ((${#only[@]} == 0)) && return 0
    local w
    for w in "${only[@]}"; do [[ $1 == *"$w"* ]] && return 0; done
    return 1
}
only=("$@")

# Every round is asked for by number, so that a failed one is run again by the next start and the row is whole.
for ((round = 1; round <= rounds; round++)); do
    for path in "${scenarios[@]}"; do
        name=${path##*::}
        wanted "$name" || continue
        key="\"scenario\":\"$name\",\"commit\":\"$commit\",\"round\":$round,\"ok\":true"
        grep -qF "$key" "$results" && continue
        log=$logs/$name-$round.log
        began=$(date +%s)
        if run --exact "$path" --nocapture --include-ignored >"$log" 2>&1; then ok=true; else ok=false; fi
        seconds=$(($(date +%s) - began))
        seed=$(sed -n 's/.*seed \([0-9]*\),.*/\1/p' "$log" | head -1)
        operations=$(grep -o '[0-9]* operations,' "$log" | head -1 | grep -o '[0-9]*' || echo 0)
        echo "{\"scenario\":\"$name\",\"commit\":\"$commit\",\"round\":$round,\"ok\":$ok,\"seed\":${seed:-0},\"seconds\":$seconds,\"operations\":${operations:-0}}" >>"$results"
        echo "$name round $round: ok=$ok, $seconds s, ${operations:-0} operations$([[ $ok == true ]] || echo ", see $log")"
    done
done

if wanted mix; then
    done_seconds=$(grep -F "\"scenario\":\"mix\"" "$results" | grep -F "\"commit\":\"$commit\"" | grep -F '"ok":true' |
        sed 's/.*"seconds":\([0-9]*\).*/\1/' | awk '{ sum += $1 } END { print sum + 0 }' || true)
    left=$((mix_seconds - ${done_seconds:-0}))
    if ((left > 0)); then
        if ! CACHECTL_MIX_SECONDS=$left CACHECTL_RESULTS=$PWD/$results CACHECTL_COMMIT=$commit \
            run --exact mix::mix --ignored --nocapture 2>&1 | tee "$logs/mix-$(date +%s).log"; then
            echo "{\"scenario\":\"mix\",\"commit\":\"$commit\",\"ok\":false}" >>"$results"
        fi
    fi
fi

# What the file says, of this commit.
grep -F "\"commit\":\"$commit\"" "$results" | awk '
    function field(name) { return match($0, "\"" name "\":[0-9]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : 0 }
    /"ok":false/ { failed++ }
    /"ok":true/ { passed++; operations += field("operations") }
    /"scenario":"mix"/ && /"ok":true/ { seconds += field("seconds"); f = $0; sub(/.*"faults":\[/, "", f); sub(/\].*/, "", f); faults += split(f, _, ",") }
    END { printf "soak: %d runs passed, %d failed, %d operations; mix: %d s, %d faults\n", passed, failed, operations, seconds, faults; exit failed > 0 }'
