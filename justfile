# The habits of this house, one word each. `just` lists them.

_list:
    @just --list

# What must be clean before a commit: format, lints, house rules.
check:
    cargo fmt --all -- --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo test --locked --test tidy

# Every test; those with real clients say what to install if a client is missing.
test:
    cargo test --locked

# A local cluster and the manager on the screen; `q` leaves it running, `cargo run --release -- down` ends it.
demo:
    cargo run --release --locked -- up --tui

# cachectl beside every other cache on PATH, and the kernel's floor; the table is left in target/peers.md.
bench:
    cargo bench --locked --bench peers

# How long a cluster takes to come up, get over deaths and change masters, and what clients see of it.
recovery *PARTS:
    cargo bench --locked --bench recovery -- {{PARTS}}

# The parts by themselves: the planner's figures, the codec, the store.
bench-parts:
    cargo bench --locked --bench plan --bench codec --bench store

# Pictures of every screen of a real cluster, as SVG, in target/pictures.
pictures:
    cargo run --release --locked -- up
    mkdir -p target/pictures
    for s in overview ring migrations masters events; do \
        cargo run --release --locked -q -- tui --snapshot $s --size 120x36 --format svg --gather 5s > target/pictures/$s.svg; done

# Every fault scenario ten times in a row and the nemesis mix for 30 minutes (root; goes on where it stopped).
soak *ONLY:
    tests/soak.sh {{ONLY}}
