//! Whole-screen pictures, compared exactly with plain text files: every screen and dialog at every size in one theme, the
//! same signs demanded of the others, and which style stands where in a file for each theme.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test tui` writes them anew; the difference is then read in review.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cachectl::proto::control::Message;
use cachectl::proto::net::watch::LinkEvent;
use cachectl::proto::operation::{Accepted, PlanView};
use cachectl::proto::status::{Health, NodeState, WatchView};
use cachectl::tui::event::{DemoEvent, Msg, Now};
use cachectl::tui::model::{Found, Model, Setup};
use cachectl::tui::replay::Played;
use cachectl::tui::request::{KeyAnswer, LocalAnswer, Refusal};
use cachectl::tui::snapshot::{picture, to_text};
use cachectl::tui::theme::ThemeName;
use cachectl::tui::update::update;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;

use crate::fixture::{self, WALL_MS, mix};

/// How a picture is taken.
#[derive(Clone, Copy)]
pub struct Paper {
    name: &'static str,
    size: (u16, u16),
    ascii: bool,
    theme: ThemeName,
}

/// What every file holds, one below the other.
const PAPERS: [Paper; 4] = [
    Paper { name: "120x36", size: (120, 36), ascii: false, theme: ThemeName::Dark },
    Paper { name: "80x24", size: (80, 24), ascii: false, theme: ThemeName::Dark },
    Paper { name: "200x60", size: (200, 60), ascii: false, theme: ThemeName::Dark },
    Paper { name: "80x24 ASCII", size: (80, 24), ascii: true, theme: ThemeName::Mono },
];

/// Themes beside the files' dark one.
const OTHER_THEMES: [ThemeName; 3] = [ThemeName::Light, ThemeName::Cvd, ThemeName::Mono];

pub fn model(paper: Paper, masters: &[&str]) -> Model {
    let mut m = Model::new(Setup {
        masters: masters.iter().map(|a| (*a).to_owned()).collect(),
        cluster: (!masters.is_empty()).then(|| "demo".to_owned()),
        ascii: paper.ascii,
        theme: paper.theme,
        can_start_demo: true,
        local: true,
        ..Setup::default()
    });
    m.size = paper.size;
    tick(&mut m, 0);
    m
}

/// `at_ms` after the pictures' zero, which is 10 minutes into the life of the clock.
fn tick(m: &mut Model, at_ms: i64) {
    let now = Now { mono_ms: 600_000u64.saturating_add_signed(at_ms), wall_ms: WALL_MS.saturating_add_signed(at_ms) };
    update(m, Msg::Tick(now));
}

fn link(m: &mut Model, event: LinkEvent) {
    update(m, Msg::Link(event));
}

/// Two minutes of views that sway, then the one to show.
fn feed(m: &mut Model, view: WatchView) {
    link(m, LinkEvent::Connected { addr: "127.0.0.1:7101".into() });
    let bare = WatchView { status: view.status.clone(), slots: None, events: Vec::new() };
    for s in (1..=110i64).rev() {
        tick(m, -s * 1000);
        let mut v = bare.clone();
        for (i, n) in v.status.nodes.iter_mut().enumerate() {
            let sway = 0.8
                + 0.25 * ((s as f64 + i as f64 * 3.0) / 14.0).sin()
                + (mix(s as u64 * 31 + i as u64) % 100) as f64 / 900.0;
            n.ops_per_s *= sway;
            n.p50_us = n.p50_us.map(|us| (us as f64 * sway) as u64);
            n.p99_us = n.p99_us.map(|us| (us as f64 * (0.5 + sway * sway / 2.0)) as u64);
            n.evicted -= n.evicted.min(s as u64 * 9);
            n.expired -= n.expired.min(s as u64 * 3);
        }
        link(m, LinkEvent::View(Box::new(v)));
    }
    tick(m, 0);
    link(m, LinkEvent::View(Box::new(view)));
    tick(m, 200);
}

fn key(m: &mut Model, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\x1b' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '→' => KeyCode::Right,
            c => KeyCode::Char(c),
        };
        update(m, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
}

/// A letter per cell for its style, then what the letters mean.
fn describe(buf: &Buffer) -> String {
    let mut out = String::new();
    let mut letters: BTreeMap<String, char> = BTreeMap::new();
    let mut legend: Vec<(char, String)> = Vec::new();
    for row in buf.content.chunks(usize::from(buf.area.width)) {
        let mut line = String::new();
        for cell in row {
            let style = format!("fg {} bg {} {:?}", cell.fg, cell.bg, cell.modifier);
            let plain = "fg Reset bg Reset Modifier(0x0)";
            let next = ('a'..='z').chain('A'..='Z').nth(legend.len()).unwrap_or('?');
            let letter = if style == plain || style.ends_with("NONE") && style.starts_with("fg Reset bg Reset") {
                ' '
            } else {
                *letters.entry(style.clone()).or_insert_with(|| {
                    legend.push((next, style));
                    next
                })
            };
            line.push(letter);
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for (letter, style) in legend {
        let _ = writeln!(out, "{letter} = {style}");
    }
    out
}

fn file(name: &str, got: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tui/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, got).expect("a snapshot can be written");
        return;
    }
    let wanted = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}; UPDATE_SNAPSHOTS=1 writes it", file.display()));
    if got != wanted {
        let line = got.lines().zip(wanted.lines()).position(|(a, b)| a != b);
        panic!("{} differs first in line {line:?} (UPDATE_SNAPSHOTS=1 accepts it). Got:\n{got}", file.display());
    }
}

const MASTERS: [&str; 3] = ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"];

/// One picture on every paper, in one file. The other themes must show the very same signs.
fn on_all(name: &str, arrange: impl Fn(Paper) -> Model) {
    let mut all = String::new();
    for paper in PAPERS {
        let text = to_text(&picture(&arrange(paper)));
        for theme in OTHER_THEMES {
            let other = to_text(&picture(&arrange(Paper { theme, ..paper })));
            // Without colours a blank between arcs of the circle is what tells them apart.
            let same = theme == ThemeName::Mono || other == text || name.contains("theme");
            assert!(same, "{name} {}: other signs in {theme:?}", paper.name);
        }
        let _ = write!(all, "== {} ==\n{text}", paper.name);
    }
    file(name, &all);
}

fn showing(view: fn() -> WatchView, keys: &'static str) -> impl Fn(Paper) -> Model {
    move |paper| {
        let mut m = model(paper, &MASTERS);
        feed(&mut m, view());
        key(&mut m, keys);
        m
    }
}

/// What the keys' last question to the leader, to a node or to a process is answered.
fn answered(
    view: fn() -> WatchView,
    keys: &'static str,
    answer: impl Fn(u64) -> Msg,
    then: &'static str,
) -> impl Fn(Paper) -> Model {
    move |paper| {
        let mut m = showing(view, keys)(paper);
        let id = m.last_request;
        update(&mut m, answer(id));
        key(&mut m, then);
        m
    }
}

fn planned(plan: fn() -> PlanView) -> impl Fn(u64) -> Msg {
    move |id| Msg::Ordered(id, Ok(Box::new(Message::Planned(Box::new(plan())))))
}

fn found(value: &'static [u8], ttl_ms: i64) -> impl Fn(u64) -> Msg {
    move |id| {
        let (value, addr) = (value.to_vec(), "127.0.0.1:7201".to_owned());
        let size = value.len() as u64;
        Msg::Keyed(id, Ok(KeyAnswer::Found(Found { value: Some(value), size, ttl_ms, addr })))
    }
}

#[test]
fn overview() {
    on_all("overview-healthy", showing(fixture::healthy, ""));
    on_all("overview-busy", showing(fixture::busy, ""));
    on_all("overview-lost-a-node", showing(fixture::lost_one, ""));
    on_all("overview-filtered", showing(fixture::busy, "o/n4\n"));
    on_all("overview-typing", showing(fixture::busy, "/127.0.0.1:72"));
    on_all("overview-node", showing(fixture::busy, "↓↓↓\n"));
    on_all("overview-disabled", showing(fixture::healthy, "p"));
    on_all("overview-frozen", |paper| {
        let mut m = showing(fixture::busy, " ")(paper);
        tick(&mut m, 900);
        m
    });
}

#[test]
fn ring() {
    on_all("ring-healthy", showing(fixture::healthy, "2"));
    on_all("ring-busy", showing(fixture::busy, "2"));
    on_all("ring-lost-a-node", showing(fixture::lost_one, "2v"));
    on_all("ring-heat", showing(fixture::busy, "2vv"));
    on_all("ring-owner", showing(fixture::busy, "2\t↓↓↓"));
    on_all("ring-which-key", showing(fixture::busy, "2wuser:1000"));
}

#[test]
fn other_screens() {
    on_all("migrations-busy", showing(fixture::busy, "3"));
    on_all("migrations-none", showing(fixture::healthy, "3"));
    on_all("migrations-rebuild", showing(fixture::lost_one, "3"));
    on_all("masters", showing(fixture::elections, "4"));
    on_all("masters-one-away", showing(fixture::lost_one, "4"));
    on_all("events", showing(fixture::elections, "5"));
    on_all("events-warnings", showing(fixture::lost_one, "5v"));
    on_all("events-write", showing(fixture::lost_one, "5w"));
    on_all("keys-none", showing(fixture::healthy, "6"));
    on_all("keys-typing", showing(fixture::healthy, "6\nuser:10"));
    on_all(
        "keys-json",
        answered(
            fixture::healthy,
            "6\nuser:1000\n",
            found(br#"{"name":"Ada","tags":["a","b"],"at":1.50}"#, 252_000),
            "",
        ),
    );
    on_all("keys-hostile", answered(fixture::healthy, "6\nx\n", found(b"\x1b[2J\x00\xff\xe2\x80\xaeevil", -1), ""));
    on_all(
        "keys-refused",
        answered(
            fixture::healthy,
            "6\nuser:1000\n",
            |id| Msg::Keyed(id, Err(Refusal { text: "no cache node can be reached".into(), ..Refusal::default() })),
            "",
        ),
    );
    on_all("palette", showing(fixture::busy, ":"));
    on_all("palette-argument", showing(fixture::busy, ":remove n"));
    on_all(
        "logs",
        answered(
            fixture::busy,
            "l",
            |id| {
                Msg::Local(id, Ok(LocalAnswer::Lines((1..60).map(|i| format!("22:13:{i:02} INFO beat {i}")).collect())))
            },
            "",
        ),
    );
}

#[test]
fn dialogs() {
    on_all("dialog-scale-out", showing(fixture::healthy, "+"));
    on_all("dialog-scale-out-elsewhere", |paper| {
        let mut m = showing(fixture::healthy, "")(paper);
        m.setup.local = false;
        key(&mut m, "+");
        m
    });
    on_all("dialog-scale-out-plan", answered(fixture::healthy, "+\n", planned(fixture::plan_out), ""));
    on_all("dialog-scale-out-plan-backups", answered(fixture::healthy, "+\n", planned(fixture::plan_out), "v"));
    on_all("dialog-scale-in", showing(fixture::healthy, "↓-"));
    on_all("dialog-scale-in-plan", answered(fixture::healthy, "↓-\n", planned(fixture::plan_in), "n"));
    on_all(
        "dialog-refused",
        answered(
            fixture::healthy,
            "-\n",
            |id| {
                let text = "n1 is the only holder of 12 slots (--accept-data-loss goes on all the same)";
                Msg::Ordered(id, Err(Refusal { code: "SOLE_HOLDER".into(), text: text.into(), unknown: false }))
            },
            "",
        ),
    );
    on_all("dialog-asking", showing(fixture::healthy, "b"));
    on_all("dialog-switch", showing(fixture::healthy, "s"));
    on_all("dialog-pause", showing(fixture::busy, "p"));
    on_all("dialog-cancel", showing(fixture::busy, "x"));
    on_all("dialog-forget", showing(fixture::lost_one, "F"));
    on_all("dialog-kill", showing(fixture::healthy, "Kn"));
    on_all("dialog-restart", showing(fixture::healthy, "4R"));
    on_all("dialog-set", showing(fixture::healthy, "6euser:1000\n{}"));
    on_all("dialog-delete", answered(fixture::healthy, "6\nuser:1000\n", found(b"12345", -1), "d"));
    on_all("toast-accepted", |paper| {
        let mut m = answered(fixture::healthy, "+\n", planned(fixture::plan_out), "\t\n")(paper);
        let started = m.last_request;
        update(&mut m, Msg::Local(started, Ok(LocalAnswer::Done(String::new()))));
        let mut view = fixture::healthy();
        let mut n4 = view.status.nodes[2].clone();
        (n4.id, n4.state) = ("n4".into(), NodeState::Standby);
        (n4.primary_slots, n4.backup_slots) = (0, 0);
        view.status.nodes.push(n4);
        link(&mut m, LinkEvent::View(Box::new(view)));
        let accepted = Accepted { operation: Some(4), plan: fixture::plan_out() };
        let id = m.last_request;
        update(&mut m, Msg::Ordered(id, Ok(Box::new(Message::Accepted(Box::new(accepted))))));
        m
    });
}

#[test]
fn help() {
    on_all("help-overview", showing(fixture::busy, "?"));
    on_all("help-scrolled", showing(fixture::busy, "?G"));
    on_all("help-ring", showing(fixture::busy, "2?"));
    on_all("help-keys", showing(fixture::busy, "6?"));
}

#[test]
fn recordings() {
    on_all("replay", |paper| {
        let mut m = showing(fixture::busy, "")(paper);
        update(
            &mut m,
            Msg::Played(Played {
                begin_ms: WALL_MS - 90_000,
                at_ms: WALL_MS,
                end_ms: WALL_MS + 210_000,
                views: (360, 1_200),
                paused: true,
                speed: 4,
                back: false,
            }),
        );
        m
    });
}

#[test]
fn lost_masters() {
    let lost = |keys: &'static str| {
        move |paper| {
            let mut m = showing(fixture::busy, keys)(paper);
            for (addr, why, next_try_ms) in [
                ("127.0.0.1:7102", "connection refused", 0),
                ("127.0.0.1:7103", "connection refused", 0),
                ("127.0.0.1:7101", "connection reset", 400),
            ] {
                tick(&mut m, 6_000);
                link(&mut m, LinkEvent::Lost { addr: addr.into(), why: why.into(), next_try_ms });
            }
            tick(&mut m, 6_000);
            m
        }
    };
    on_all("lost-overview", lost(""));
    on_all("lost-ring", lost("2"));
    on_all("lost-unknown-outcome", |paper| {
        let mut m = answered(fixture::healthy, "-\n", planned(fixture::plan_in), "n2\n\n")(paper);
        let id = m.last_request;
        update(
            &mut m,
            Msg::Ordered(id, Err(Refusal { text: "connection reset".into(), unknown: true, ..Refusal::default() })),
        );
        link(&mut m, LinkEvent::Lost { addr: MASTERS[0].into(), why: "connection reset".into(), next_try_ms: 0 });
        tick(&mut m, 6_000);
        m
    });
    on_all("stale", |paper| {
        let mut m = showing(fixture::healthy, "")(paper);
        tick(&mut m, 1_700);
        m
    });
    on_all("no-leader", |paper| {
        let mut m = model(paper, &MASTERS);
        let mut view = fixture::healthy();
        view.status.leader = None;
        view.status.state = Health::Degraded;
        view.status.masters[0].alive = false;
        for n in &mut view.status.nodes {
            n.heartbeat_age_ms = None;
        }
        feed(&mut m, view);
        m
    });
}

#[test]
fn before_there_is_anything() {
    on_all("start", |paper| model(paper, &[]));
    on_all("start-demo", |paper| {
        let mut m = model(paper, &[]);
        key(&mut m, "u");
        for step in ["3 masters started", "m1 leads", "waiting for 3 cache nodes"] {
            update(&mut m, Msg::Demo(DemoEvent::Progress(step.into())));
        }
        m
    });
    on_all("start-failed", |paper| {
        let mut m = model(paper, &[]);
        key(&mut m, "u");
        update(&mut m, Msg::Demo(DemoEvent::Failed("ports 7101-7103 are in use".into())));
        m
    });
    on_all("connecting", |paper| {
        let mut m = model(paper, &MASTERS);
        link(&mut m, LinkEvent::Lost { addr: MASTERS[0].into(), why: "connection refused".into(), next_try_ms: 0 });
        link(&mut m, LinkEvent::Lost { addr: MASTERS[1].into(), why: "connection refused".into(), next_try_ms: 1200 });
        m
    });
}

#[test]
fn hostile_names() {
    on_all("hostile-overview", showing(fixture::hostile, ""));
    on_all("hostile-ring", showing(fixture::hostile, "2"));
    on_all("hostile-migrations", showing(fixture::hostile, "3"));
    on_all("hostile-masters", showing(fixture::hostile, "4"));
    on_all("hostile-node", showing(fixture::hostile, "\n"));
}

#[test]
fn odd_sizes() {
    let mut all = String::new();
    for size in [(59, 40), (60, 16), (12, 2), (1, 1)] {
        for keys in ["", "2", "3", "4", "5", "6", "+", ":"] {
            let paper = Paper { name: "", size, ascii: false, theme: ThemeName::Dark };
            let text = to_text(&picture(&showing(fixture::busy, keys)(paper)));
            // Below the least size there is one message, whatever was pressed.
            if size.0 >= 60 || keys.is_empty() {
                let _ = write!(all, "== {}x{} after {keys:?} ==\n{text}", size.0, size.1);
            }
        }
    }
    file("odd-sizes", &all);
}

/// Where which style stands: of the screens that use most of them, one file for each theme.
#[test]
fn themes() {
    for (theme, word) in [ThemeName::Dark, ThemeName::Light, ThemeName::Cvd, ThemeName::Mono].map(|t| (t, t.word())) {
        let paper = Paper { name: "", size: (100, 30), ascii: false, theme };
        let mut all = String::new();
        for (name, view, keys) in [
            ("overview", fixture::busy as fn() -> WatchView, ""),
            ("a node lost", fixture::lost_one, ""),
            ("ring", fixture::busy, "2"),
            ("migrations", fixture::busy, "3"),
            ("masters", fixture::elections, "4"),
            ("events", fixture::lost_one, "5"),
            ("dialog", fixture::healthy, "K"),
        ] {
            let _ = write!(all, "== {name} ==\n{}", describe(&picture(&showing(view, keys)(paper))));
        }
        file(&format!("theme-{word}"), &all);
    }
}

#[test]
fn ascii_pictures_are_ascii_and_mono_ones_have_no_colour() {
    for paper in PAPERS.into_iter().filter(|p| p.ascii) {
        for view in [fixture::busy, fixture::lost_one, fixture::hostile] {
            for keys in ["", "2", "2vv", "3", "4", "5", "6", "?", "2?", "\n", "+", "-", ":", "s"] {
                let buf = picture(&showing(view, keys)(paper));
                for cell in &buf.content {
                    assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
                    assert_eq!((cell.fg, cell.bg), Default::default());
                }
            }
        }
    }
}
