//! Whole-screen pictures, compared exactly with plain text files: signs first, then which style stands where.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test tui` writes them anew; the difference is then read in review.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cachectl::proto::net::watch::LinkEvent;
use cachectl::proto::status::{Health, WatchView};
use cachectl::tui::event::{DemoEvent, Msg, Now};
use cachectl::tui::model::{Model, Setup};
use cachectl::tui::snapshot::{picture, to_text};
use cachectl::tui::theme::ThemeName;
use cachectl::tui::update::update;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;

use crate::fixture::{self, WALL_MS, mix};

/// How a picture is taken.
#[derive(Clone, Copy)]
struct Paper {
    name: &'static str,
    size: (u16, u16),
    ascii: bool,
    theme: ThemeName,
}

const PAPERS: [Paper; 4] = [
    Paper { name: "120x36", size: (120, 36), ascii: false, theme: ThemeName::Dark },
    Paper { name: "80x24", size: (80, 24), ascii: false, theme: ThemeName::Dark },
    Paper { name: "120x36-ascii", size: (120, 36), ascii: true, theme: ThemeName::Mono },
    Paper { name: "80x24-ascii", size: (80, 24), ascii: true, theme: ThemeName::Mono },
];

fn model(paper: Paper, masters: &[&str]) -> Model {
    let mut m = Model::new(Setup {
        masters: masters.iter().map(|a| (*a).to_owned()).collect(),
        cluster: (!masters.is_empty()).then(|| "demo".to_owned()),
        ascii: paper.ascii,
        theme: paper.theme,
        can_start_demo: true,
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

/// Signs, then a letter per cell for its style, then what the letters mean.
fn describe(buf: &Buffer) -> String {
    let mut out = to_text(buf);
    let mut letters: BTreeMap<String, char> = BTreeMap::new();
    let mut legend: Vec<(char, String)> = Vec::new();
    out.push_str("--- styles ---\n");
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

fn compare(name: &str, paper: Paper, m: &Model) {
    let got = describe(&picture(m));
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tui/snapshots").join(format!("{name}.{}.txt", paper.name));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, &got).expect("a snapshot can be written");
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

/// One picture on every paper.
fn on_all(name: &str, arrange: impl Fn(Paper) -> Model) {
    for paper in PAPERS {
        compare(name, paper, &arrange(paper));
    }
}

fn showing(view: fn() -> WatchView, keys: &'static str) -> impl Fn(Paper) -> Model {
    move |paper| {
        let mut m = model(paper, &MASTERS);
        feed(&mut m, view());
        key(&mut m, keys);
        m
    }
}

#[test]
fn overview() {
    on_all("overview-healthy", showing(fixture::healthy, ""));
    on_all("overview-busy", showing(fixture::busy, ""));
    on_all("overview-lost-a-node", showing(fixture::lost_one, ""));
}

#[test]
fn overview_handled() {
    on_all("overview-filtered", showing(fixture::busy, "o/n4\n"));
    on_all("overview-typing", showing(fixture::busy, "/127.0.0.1:72"));
    on_all("overview-node", showing(fixture::busy, "↓↓↓\n"));
    on_all("overview-disabled", showing(fixture::busy, "+"));
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
    on_all("ring-owner", showing(fixture::busy, "2\t↓↓↓"));
    on_all("ring-which-key", showing(fixture::busy, "2wuser:1000"));
}

#[test]
fn help() {
    on_all("help-overview", showing(fixture::busy, "?"));
    on_all("help-ring", showing(fixture::busy, "2?"));
    on_all("help-scrolled", showing(fixture::busy, "?G"));
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
    on_all("stale", |paper| {
        let mut m = showing(fixture::healthy, "")(paper);
        tick(&mut m, 1_700);
        m
    });
}

#[test]
fn without_a_leader() {
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
    on_all("hostile-node", showing(fixture::hostile, "\n"));
}

#[test]
fn odd_sizes() {
    for (name, size) in [("59x40", (59, 40)), ("60x16", (60, 16)), ("200x60", (200, 60)), ("12x2", (12, 2))] {
        let paper = Paper { name, size, ascii: false, theme: ThemeName::Dark };
        compare("overview", paper, &showing(fixture::busy, "")(paper));
        compare("ring", paper, &showing(fixture::busy, "2")(paper));
    }
}

#[test]
fn ascii_pictures_are_ascii_and_mono_ones_have_no_colour() {
    for paper in PAPERS.into_iter().filter(|p| p.ascii) {
        for view in [fixture::busy, fixture::lost_one, fixture::hostile] {
            for keys in ["", "2", "?", "2?", "\n"] {
                let buf = picture(&showing(view, keys)(paper));
                for cell in &buf.content {
                    assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
                    assert_eq!((cell.fg, cell.bg), Default::default());
                }
            }
        }
    }
}
