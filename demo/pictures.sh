#!/usr/bin/env bash
# Pictures of the screens: a real cluster under load is recorded until a scale-out is under way, and drawn from the recording.
#
#   demo/pictures.sh [DIR]      DIR (target/pictures) gets SVGs, dark and light, and PNGs where rsvg-convert is there
#
# CACHECTL names the program (target/release/cachectl).
set -euo pipefail
cd "$(dirname "$0")/.."
cachectl=$(realpath "${CACHECTL:-target/release/cachectl}")
out=${1:-target/pictures}
# Enough to see a migration: a fourth of it moves, twice.
KEYS=150000
SIZE=1000
# The charts show two minutes; so much of them is filled.
PAST_S=75
# The picture is taken when so much of the operation is done, percent: backups move first, so a node owns slots from 50 on.
DONE_MIN=62

home=$(mktemp -d)
export XDG_STATE_HOME=$home XDG_CONFIG_HOME=$home
load= screen=
cleanup() {
    [[ -n $load ]] && kill -INT "$load" 2>/dev/null || true
    [[ -n $screen ]] && kill "$screen" 2>/dev/null || true
    "$cachectl" --name demo down --yes --purge >/dev/null 2>&1 || true
    rm -rf "$home"
}
trap cleanup EXIT

"$cachectl" --name demo up --base-port 24000 --memory 256mb --wait 60s -q
"$cachectl" bench --load --keys $KEYS --size $SIZE --clients 16 --duration 1s -q >/dev/null
"$cachectl" bench --keys $KEYS --size $SIZE --clients 24 --rate 2500 --distribution zipf:0.9 --duration 600s -q >/dev/null &
load=$!

# Loading was faster than the picture's load: its rate would squeeze the chart.
sleep 5

# The screen needs a terminal; script makes one, and reads from a pipe that stays open.
tail -f /dev/null | TERM=xterm-256color LC_ALL=C.UTF-8 script -qfec \
    "stty rows 36 cols 120; echo \$\$ >$home/pid; exec $cachectl --name demo tui --record $home/run.ndjson" \
    /dev/null >/dev/null 2>&1 &
until [[ -s $home/pid ]]; do sleep 0.1; done
screen=$(<"$home/pid")
sleep $PAST_S
"$cachectl" --name demo add --no-wait -y -q >/dev/null
until [[ $("$cachectl" --name demo status -o json || true) =~ \"slots_total\":([0-9]+),\"slots_done\":([0-9]+) ]] &&
    ((BASH_REMATCH[2] * 100 >= BASH_REMATCH[1] * DONE_MIN)); do
    sleep 0.2
done
kill "$screen"
while kill -0 "$screen" 2>/dev/null; do sleep 0.1; done
screen=

mkdir -p "$out"
# What they are drawn from; `cachectl tui --replay` plays it.
cp "$home/run.ndjson" "$out/run.ndjson"
for theme in dark light; do
    for screen_name in overview ring migrations masters events; do
        file=$out/$screen_name$([[ $theme == dark ]] || echo "-$theme")
        "$cachectl" tui --replay "$home/run.ndjson" --snapshot $screen_name --size 120x36 --theme $theme --format svg >"$file.svg"
        ! command -v rsvg-convert >/dev/null || rsvg-convert --zoom 2 "$file.svg" -o "$file.png"
    done
done
ls -l "$out"
