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
    cargo build --release --locked
    PEERS_CACHECTL=$PWD/target/release/cachectl cargo bench --locked --bench peers

# What a backup costs: three nodes with one and without, and every other cluster on PATH with asynchronous replicas.
clusters:
    cargo bench --locked --bench clusters

# What one node costs by memory and as it grows, and whether anything makes it pause: `just engine memory pauses` names parts.
engine *PARTS:
    cargo build --release --locked
    ENGINE_CACHECTL=$PWD/target/release/cachectl cargo bench --locked --bench engine -- {{PARTS}}

# What the eviction policies miss, beside exact ones: `just eviction trace.csv` takes the first column of a file for keys.
eviction *FILES:
    cargo bench --locked --bench eviction -- {{FILES}}

# How long a cluster takes to come up, get over deaths and change masters, and what clients see of it.
recovery *PARTS:
    cargo bench --locked --bench recovery -- {{PARTS}}

# Scale-out and scale-in with a million keys under paced load: what clients notice, how fast data moves.
moves:
    cargo bench --locked --bench moves

# The parts by themselves: the planner's figures, the codec, the store.
bench-parts:
    cargo bench --locked --bench plan --bench codec --bench store

# Instructions a command, beside their budget (benches/instructions.json); needs valgrind. `just instructions --write` renews it.
instructions *FLAGS:
    cargo bench --locked --bench instructions -- {{FLAGS}}

# Pictures of every screen of a real cluster while a migration is under way: SVGs (and PNGs, with rsvg-convert) in target/pictures.
pictures DIR="target/pictures":
    cargo build --release --locked
    demo/pictures.sh {{DIR}}

# Every fault scenario ten times in a row and the nemesis mix for 30 minutes (root; goes on where it stopped).
soak *ONLY:
    tests/soak.sh {{ONLY}}

# `restart --rolling` of three masters and five nodes under writers; prints how long it took.
rolling:
    cargo test --locked --test cli -- --exact rolling::three_masters_and_five_nodes_restart_and_no_client_notices --ignored --nocapture
