#!/usr/bin/env bash
# A guided tour of a local cluster: start it, write to it, kill a cache node, kill the leading master, scale out and in, switch
# masters, stop it.
# Every step is checked; the first that fails ends the tour with exit code 1, after its cluster was ended.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pause=${TOUR_PAUSE:-0}
patience=${TOUR_PATIENCE:-60} # seconds a step may take before it counts as failed
with_tui=no

usage() {
    echo "usage: demo/tour.sh [--tui]"
    echo "  --tui   show the manager beside the tour, in a tmux session of its own"
}

inside=no
for word in "$@"; do
    case $word in
        --tui) with_tui=yes ;;
        --inside) inside=yes ;; # set by the tour itself, in its tmux session
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

find_cachectl() {
    local candidate
    for candidate in "${CACHECTL:-}" "$here/../target/release/cachectl" "$here/../target/debug/cachectl"; do
        if [[ -n $candidate && -x $candidate ]]; then
            (cd "$(dirname "$candidate")" && echo "$PWD/$(basename "$candidate")")
            return
        fi
    done
    command -v cachectl
}
cachectl=$(find_cachectl) || { echo "no cachectl found: build it with 'cargo build', or set CACHECTL" >&2; exit 1; }

# ---- a session of tmux: the tour on the left, the manager on the right -------------------------------------------------

if [[ $with_tui == yes && $inside == no ]]; then
    command -v tmux > /dev/null || { echo "--tui needs tmux" >&2; exit 1; }
    session="cachectl-tour-$$"
    result=$(mktemp)
    tmux new-session -d -s "$session" -x 200 -y 50 \
        "CACHECTL='$cachectl' TOUR_PAUSE='$pause' TOUR_PATIENCE='$patience' '$here/tour.sh' --tui --inside; echo \$? > '$result'; sleep 2"
    if [[ -t 0 && -t 1 ]]; then
        tmux attach -t "$session" || true
    fi
    while tmux has-session -t "$session" 2> /dev/null; do sleep 0.2; done
    code=$(cat "$result")
    rm -f "$result"
    exit "${code:-1}"
fi

# ---- a world of its own -----------------------------------------------------------------------------------------------

work=$(mktemp -d)
export XDG_STATE_HOME="$work/state" XDG_CONFIG_HOME="$work/config"
unset CACHECTL_NAME CACHECTL_MASTERS_ADDR CACHECTL_OUTPUT
state="$XDG_STATE_HOME/cachectl/tour"
acked="$work/acknowledged"
writer=

finish() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $writer ]]; then
        kill "$writer" 2> /dev/null || true
        wait "$writer" 2> /dev/null || true
    fi
    if ((code != 0)); then
        echo
        echo "the tour failed (exit $code); the last words of the cluster's processes:" >&2
        "$cachectl" logs --name tour --tail 40 >&2 || true
    fi
    "$cachectl" down --name tour --purge --quiet || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

bold= plain=
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() {
    printf '  $ cachectl %s\n' "$*"
    "$cachectl" "$@" 2>&1 | sed 's/^/    /'
}
fail() { echo "FAILED: $*" >&2; exit 1; }
breathe() { sleep "$pause"; }

status() { "$cachectl" status --name tour -o json 2> /dev/null || true; }
# The first "state" of the document is the cluster's.
cluster_state() { status | grep -o '"state":"[a-z]*"' | head -n 1 | cut -d '"' -f 4; }
leader() { status | grep -o '"leader":"[^"]*"' | cut -d '"' -f 4; }
node_state() { status | grep -o "\"id\":\"$1\",\"addr\":\"[^\"]*\",\"incarnation\":\"[^\"]*\",\"state\":\"[a-z]*\"" | grep -o '[a-z]*"$' | tr -d '"'; }
primary_slots() { status | grep -o "\"id\":\"$1\",\"addr\":.*" | grep -o '"primary_slots":[0-9]*' | head -n 1 | cut -d : -f 2; }
# The pid that `up` recorded; nothing else is ever signalled.
pid_of() { awk -v id="\"$1\"" '$1 == "\"id\":" { found = index($2, id) } found && $1 == "\"pid\":" { gsub(/[^0-9]/, "", $2); print $2; exit }' "$state/cluster.json"; }

# until_true WHAT COMMAND…: waits until the command succeeds.
until_true() {
    local what=$1 end=$((SECONDS + patience))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "waited $patience s for $what"
        sleep 0.1
    done
    echo "  ok: $what"
}
is_ok() { [[ $(cluster_state) == ok ]]; }
acknowledged() { wc -l < "$acked" | tr -d ' '; }
more_than() { (($(acknowledged) > $1)); }
not_up() { [[ $(node_state "$1") != up ]]; }
is_up() { [[ $(node_state "$1") == up ]]; }
leads_other_than() { local now; now=$(leader); [[ -n $now && $now != "$1" ]]; }
gone() { ! [[ -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2> /dev/null; }

# ---- the tour ---------------------------------------------------------------------------------------------------------

say "1. A cluster: three masters, three cache nodes, every slot with its backup"
run up --name tour --wait "${patience}s"
is_ok || fail "up returned, and the cluster is not ok"
echo "  ok: every slot serves and has its backup"
if [[ $with_tui == yes ]]; then
    tmux split-window -h -l 60% "XDG_STATE_HOME='$XDG_STATE_HOME' XDG_CONFIG_HOME='$XDG_CONFIG_HOME' '$cachectl' tui --name tour"
    tmux select-pane -L
fi
run status --name tour
breathe

say "2. Keys: written, read, found"
run set greeting hello --name tour
[[ $("$cachectl" get greeting --name tour) == hello ]] || fail "greeting is not hello"
echo "  ok: what was written is read"
run where greeting --name tour
breathe

say "3. A writer that notes every acknowledged write"
: > "$acked"
(
    i=0
    while :; do
        i=$((i + 1))
        if [[ $("$cachectl" set "tour:$i" "value-$i" --name tour 2> /dev/null) == OK ]]; then
            echo "$i" >> "$acked"
        fi
    done
) &
writer=$!
until_true "20 acknowledged writes" more_than 20
breathe

say "4. kill -9 of cache node n2: its backups take over"
victim=$(pid_of n2)
[[ -n $victim ]] || fail "no pid of n2 is recorded"
kill -9 "$victim"
until_true "n2 is seen to be gone" not_up n2
before=$(acknowledged)
until_true "writes go on without n2" more_than $((before + 20))
until_true "every slot has a backup again, on the nodes that are left" is_ok
run status --name tour
breathe

say "5. kill -9 of the leading master: another one leads, and nobody waits for it"
old=$(leader)
[[ -n $old ]] || fail "no master leads"
victim=$(pid_of "$old")
before=$(acknowledged)
kill -9 "$victim"
until_true "another master than $old leads" leads_other_than "$old"
until_true "writes went on meanwhile" more_than $((before + 20))
echo "  now $(leader) leads"
breathe

say "6. up again: only what is missing is started"
run up --name tour --wait "${patience}s"
until_true "the cluster is ok" is_ok
is_up n2 || fail "n2 is not back"
run status --name tour
breathe

say "7. Scale out: a fourth node gets its share while the writer writes"
before=$(acknowledged)
run add --name tour
until_true "the cluster is ok" is_ok
is_up n4 || fail "n4 is not up"
(($(primary_slots n4) > 16384 / 5)) || fail "n4 leads only $(primary_slots n4) slots"
echo "  ok: n4 leads $(primary_slots n4) slots"
until_true "writes went on meanwhile" more_than $((before + 20))
breathe

say "8. Switchover: another master leads, by plan"
old=$(leader)
run switchover --name tour
until_true "another master than $old leads" leads_other_than "$old"
breathe

say "9. Scale in: n4 is drained, then it stops"
victim=$(pid_of n4)
run remove n4 --yes --name tour
gone "$victim" || fail "n4 (process $victim) still runs"
[[ $(node_state n4) == left ]] || fail "n4 is '$(node_state n4)', not left"
until_true "the cluster is ok" is_ok
run check --name tour
breathe

say "10. Every acknowledged write is still there"
kill "$writer" 2> /dev/null || true
wait "$writer" 2> /dev/null || true
writer=
count=0
while read -r i; do
    [[ $("$cachectl" get "tour:$i" --name tour) == "value-$i" ]] || fail "tour:$i was acknowledged and is gone"
    count=$((count + 1))
done < "$acked"
echo "  ok: $count of $count"
breathe

say "11. Down: no process, no socket, no lock stays"
pids=$(awk '$1 == "\"pid\":" { gsub(/[^0-9]/, "", $2); print $2 }' "$state/cluster.json")
run down --name tour
for pid in $pids; do
    gone "$pid" || fail "process $pid is still there"
done
[[ ! -e $state/cluster.json && ! -e $state/lock ]] || fail "something is left in $state"
echo "  ok: nothing is left"

say "That was the tour. Your own cluster: cachectl up"
