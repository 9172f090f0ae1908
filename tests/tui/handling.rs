//! What keys and views do to the model, through `update` alone.

use cachectl::proto::net::watch::LinkEvent;
use cachectl::proto::slot::Slot;
use cachectl::proto::status::WatchView;
use cachectl::tui::cluster::EVENTS_MAX;
use cachectl::tui::effect::Effect;
use cachectl::tui::event::{DemoEvent, Msg, Now};
use cachectl::tui::keys::{self, TABLE};
use cachectl::tui::model::{INPUT_MAX, Model, Panel, Screen, Setup};
use cachectl::tui::snapshot::{picture, to_text};
use cachectl::tui::update::update;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::fixture;

fn model() -> Model {
    Model::new(Setup { masters: vec!["127.0.0.1:7101".into()], can_start_demo: true, ..Setup::default() })
}

fn at(m: &mut Model, mono_ms: u64) {
    update(m, Msg::Tick(Now { mono_ms, wall_ms: fixture::WALL_MS + mono_ms }));
}

fn view(m: &mut Model, v: WatchView) {
    update(m, Msg::Link(LinkEvent::View(Box::new(v))));
}

fn code(m: &mut Model, code: KeyCode) -> Vec<Effect> {
    update(m, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn keys(m: &mut Model, text: &str) -> Vec<Effect> {
    text.chars().flat_map(|c| code(m, KeyCode::Char(c))).collect()
}

fn busy() -> Model {
    let mut m = model();
    view(&mut m, fixture::busy());
    m
}

fn shown(m: &Model) -> (u64, u64) {
    let s = &m.shown().expect("a view came").status;
    (s.term, s.epoch)
}

fn with(mut v: WatchView, term: u64, epoch: u64) -> WatchView {
    (v.status.term, v.status.epoch) = (term, epoch);
    v
}

#[test]
fn a_lower_view_is_never_shown_and_does_not_count_as_alive() {
    let mut m = model();
    view(&mut m, with(fixture::healthy(), 7, 42));
    at(&mut m, 2_000);
    for (term, epoch) in [(7, 41), (6, 99)] {
        view(&mut m, with(fixture::healthy(), term, epoch));
        assert_eq!(shown(&m), (7, 42));
        assert_eq!(m.link.age_ms(m.now.mono_ms), Some(2_000));
        assert!(m.link.refused.is_some(), "and it says so");
    }
    view(&mut m, with(fixture::healthy(), 8, 42));
    assert_eq!(shown(&m), (8, 42));
    assert_eq!(m.link.refused, None);
}

#[test]
fn another_cluster_takes_nothing_over_from_the_old_one() {
    let mut m = busy();
    keys(&mut m, " ");
    let mut other = with(fixture::healthy(), 1, 3);
    other.status.cluster_id = "00000000000000bb".into();
    view(&mut m, other);
    assert_eq!(shown(&m), (1, 3));
    let cluster = m.shown().unwrap();
    assert_eq!(cluster.table.names, ["n1", "n2", "n3"]);
    assert_eq!(cluster.events.len(), fixture::healthy().events.len());
    assert!(m.toast.as_ref().unwrap().text.contains("another cluster"));
}

#[test]
fn a_view_without_slots_keeps_the_table() {
    let mut m = busy();
    let before = m.shown().unwrap().table.clone();
    view(&mut m, WatchView { slots: None, ..fixture::busy() });
    assert_eq!(m.shown().unwrap().table, before);
}

#[test]
fn events_come_once_and_gaps_are_counted() {
    let mut m = busy();
    let n = fixture::busy().events.len();
    view(&mut m, fixture::busy());
    assert_eq!(m.shown().unwrap().events.len(), n, "a stream that starts again repeats nothing");
    let mut later = fixture::busy();
    later.events.retain(|e| e.seq == 1);
    later.events[0].seq = 10;
    view(&mut m, later);
    let c = m.shown().unwrap();
    assert_eq!((c.events.len(), c.events_missed), (n + 1, 4));
    let mut more = WatchView { slots: None, ..fixture::busy() };
    more.events.truncate(1);
    for seq in 11..11 + 2 * EVENTS_MAX as u64 {
        more.events[0].seq = seq;
        view(&mut m, more.clone());
    }
    assert_eq!(m.shown().unwrap().events.len(), EVENTS_MAX);
}

#[test]
fn a_frozen_picture_stands_still_while_the_cluster_goes_on() {
    let mut m = busy();
    keys(&mut m, " ");
    at(&mut m, 700);
    view(&mut m, with(fixture::healthy(), 9, 50));
    assert_eq!(shown(&m), (7, 42));
    assert_eq!(m.shown_now().mono_ms, 0, "ages stand still too");
    keys(&mut m, " ");
    assert_eq!(shown(&m), (9, 50));
}

#[test]
fn a_filter_works_while_it_is_typed_and_esc_takes_it_back() {
    let mut m = busy();
    keys(&mut m, "/SUSP");
    assert_eq!(m.rows().iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["n4"]);
    code(&mut m, KeyCode::Backspace);
    code(&mut m, KeyCode::Enter);
    assert_eq!((m.prompt.clone(), m.filter.as_str()), (None, "SUS"));
    keys(&mut m, "/x");
    assert!(m.rows().is_empty());
    code(&mut m, KeyCode::Esc);
    assert_eq!(m.filter, "SUS", "back to what it was");
    code(&mut m, KeyCode::Esc);
    assert_eq!(m.filter, "");
    assert_eq!(m.rows().len(), 6);
}

#[test]
fn keys_typed_into_a_prompt_do_nothing_else() {
    let mut m = busy();
    keys(&mut m, "/");
    assert_eq!(keys(&mut m, "q+2Ty "), []);
    assert_eq!((m.filter.as_str(), m.screen), ("q+2Ty ", Screen::Overview));
    let quit = update(&mut m, Msg::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    assert_eq!(quit, [Effect::Quit]);
}

#[test]
fn what_is_typed_is_bounded() {
    let mut m = busy();
    keys(&mut m, "/");
    update(&mut m, Msg::Paste("ab\x1b\n".repeat(10_000)));
    assert_eq!(m.filter.chars().count(), INPUT_MAX);
    assert!(!m.filter.contains(|c: char| c.is_control()));
}

#[test]
fn the_selection_follows_its_node() {
    let mut m = busy();
    keys(&mut m, "jjj");
    let selected = |m: &Model| m.rows()[m.selected_row(&m.rows())].id.clone();
    assert_eq!(selected(&m), "n4");
    keys(&mut m, "o");
    assert_eq!(m.rows()[0].id, "n4", "trouble first");
    assert_eq!(selected(&m), "n4");
    keys(&mut m, "G");
    assert_eq!(m.selected_row(&m.rows()), 5);
    let mut fewer = fixture::busy();
    fewer.status.nodes.truncate(2);
    view(&mut m, fewer);
    assert_eq!(m.selected_row(&m.rows()), 0, "gone: the first one");
}

#[test]
fn rows_sort_in_a_total_order_whatever_the_numbers() {
    let mut m = model();
    view(&mut m, fixture::hostile());
    for _ in 0..8 {
        let rows: Vec<String> = m.rows().iter().map(|n| n.id.clone()).collect();
        keys(&mut m, "O");
        let mut reversed: Vec<String> = m.rows().iter().map(|n| n.id.clone()).collect();
        reversed.reverse();
        assert_eq!(rows, reversed);
        keys(&mut m, "Oo");
    }
}

#[test]
fn a_screen_that_is_read_only_changes_nothing_and_says_why() {
    for c in ['+', '-', 's', 'p', 'x', 'b', 'F', 'K', 'P', 'C', 'R'] {
        let mut m = busy();
        m.setup.read_only = true;
        let before = m.clone();
        assert_eq!(keys(&mut m, &c.to_string()), []);
        assert!(m.toast.take().is_some_and(|t| t.text.starts_with("read-only")), "{c}");
        assert_eq!(m, before, "{c}");
    }
}

#[test]
fn without_masters_actions_name_the_lost_link() {
    let mut m = busy();
    at(&mut m, 3_000);
    use keys::Action::*;
    for action in [ScaleOut, ScaleIn, SwitchMaster, Pause, Cancel, Rebalance, Forget] {
        assert!(keys::disabled(&m, action).unwrap().contains("no master"));
    }
    assert_eq!(keys::disabled(&m, SetKey), None, "nodes serve without masters");
}

#[test]
fn messages_go_by_themselves() {
    let mut m = busy();
    m.setup.read_only = true;
    keys(&mut m, "+");
    at(&mut m, 4_900);
    assert!(m.toast.is_some());
    at(&mut m, 5_000);
    assert_eq!(m.toast, None);
}

#[test]
fn the_ring_has_no_end() {
    let mut m = busy();
    keys(&mut m, "2h");
    assert_eq!(m.ring.cursor, 16_384 - 64);
    keys(&mut m, "l");
    assert_eq!(m.ring.cursor, 0);
    keys(&mut m, "k");
    assert_eq!(m.ring.cursor, 16_384 - 2048);
    keys(&mut m, "Gl");
    assert_eq!(m.ring.cursor, 63);
}

#[test]
fn a_typed_key_points_at_its_slot() {
    let mut m = busy();
    keys(&mut m, "2wuser:1000");
    assert_eq!(m.ring.cursor, Slot::of_key(b"user:1000").0);
    assert_eq!(m.ring.key.as_deref(), Some("user:1000"));
    code(&mut m, KeyCode::Enter);
    keys(&mut m, "l");
    assert_eq!(m.ring.key, None, "the cursor moved on");
}

#[test]
fn tab_goes_only_to_what_is_on_the_screen() {
    let mut m = model();
    view(&mut m, fixture::healthy());
    update(&mut m, Msg::Resize(80, 24));
    let mut seen = vec![m.panel()];
    code(&mut m, KeyCode::Tab);
    seen.push(m.panel());
    code(&mut m, KeyCode::Tab);
    seen.push(m.panel());
    assert_eq!(seen, [Panel::Nodes, Panel::Events, Panel::Nodes], "no operation, no panel of operations");
    update(&mut m, Msg::Resize(120, 36));
    code(&mut m, KeyCode::BackTab);
    code(&mut m, KeyCode::BackTab);
    assert_eq!(m.panel(), Panel::Operations);
    update(&mut m, Msg::Resize(80, 24));
    assert_eq!(m.panel(), Panel::Nodes, "a panel that went away gives the keys back");
}

#[test]
fn copying_takes_what_is_selected() {
    let mut m = busy();
    assert_eq!(keys(&mut m, "jy"), [Effect::Copy("n2 127.0.0.1:7202 up".into())]);
    let copied = keys(&mut m, "2y");
    assert_eq!(copied, [Effect::Copy("slot 0 primary n1 backup n5 pterm 31".into())]);
    let mut empty = model();
    assert_eq!(keys(&mut empty, "y"), []);
    let mut hostile = model();
    view(&mut hostile, fixture::hostile());
    for row in 0..6 {
        let effects = keys(&mut hostile, "y");
        let Some(Effect::Copy(text)) = effects.first() else { panic!("row {row} is copied") };
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        keys(&mut hostile, "j");
    }
}

#[test]
fn esc_takes_one_thing_at_a_time() {
    let mut m = busy();
    keys(&mut m, "2/n\n");
    code(&mut m, KeyCode::Enter);
    keys(&mut m, " ?");
    for left in ["help", "frozen", "filter", "screen"] {
        assert_eq!(
            (m.overlay.is_some(), m.frozen.is_some(), m.filter.is_empty(), m.screen),
            match left {
                "help" => (true, true, false, Screen::Ring),
                "frozen" => (false, true, false, Screen::Ring),
                "filter" => (false, false, false, Screen::Ring),
                _ => (false, false, true, Screen::Ring),
            },
            "{left}"
        );
        code(&mut m, KeyCode::Esc);
    }
    assert_eq!(m.screen, Screen::Overview);
}

#[test]
fn the_start_screen_starts_one_demo() {
    let mut m = Model::new(Setup { can_start_demo: true, ..Setup::default() });
    assert!(m.at_start());
    assert_eq!(keys(&mut m, "u"), [Effect::StartDemo]);
    assert_eq!(keys(&mut m, "u"), [], "one at a time");
    update(&mut m, Msg::Demo(DemoEvent::Failed("no port".into())));
    assert_eq!(keys(&mut m, "u"), [Effect::StartDemo], "another try");
    let masters = vec!["127.0.0.1:7101".to_owned()];
    assert_eq!(update(&mut m, Msg::Demo(DemoEvent::Started(masters.clone()))), [Effect::Watch(masters)]);
    assert!(!m.at_start());
}

#[test]
fn only_quit_and_the_end_of_the_terminal_leave() {
    for b in TABLE {
        let mut m = busy();
        let quits = cachectl::tui::update::act(&mut m, b.action).contains(&Effect::Quit);
        assert_eq!(quits, b.action == keys::Action::Quit, "{}", b.shown);
    }
    assert_eq!(update(&mut model(), Msg::Terminate), [Effect::Quit]);
    let lost = LinkEvent::Lost { addr: "a:1".into(), why: "x".into(), next_try_ms: 1 };
    assert_eq!(update(&mut model(), Msg::Link(lost)), [], "a server that is gone is no reason to leave");
}

#[test]
fn sorting_goes_from_trouble_to_heat() {
    let mut m = busy();
    keys(&mut m, "oo");
    let rows = m.rows();
    assert!(rows.windows(2).all(|w| w[0].ops_per_s >= w[1].ops_per_s), "two keys: the hottest is first");
    assert_eq!(m.overview.sort.word(), "ops/s");
    keys(&mut m, "ooooo");
    assert_eq!(m.overview.sort.word(), "node", "and round");
}

#[test]
fn a_lost_link_is_told_in_time_and_keys_answer_all_along() {
    let mut m = model();
    update(&mut m, Msg::Resize(120, 36));
    at(&mut m, 10_000);
    update(&mut m, Msg::Link(LinkEvent::Connected { addr: "127.0.0.1:7101".into() }));
    view(&mut m, with(fixture::busy(), 7, 42));
    let screen = |m: &Model| to_text(&picture(m));
    assert!(screen(&m).contains("LIVE"));
    // The masters die right after a view; their connections end, every try fails. The clock wakes the screen when the
    // link says so, and at each full second.
    let (mut stale_ms, mut lost_ms) = (None, None);
    let mut now = 10_000;
    while now < 20_000 {
        let second = now / 1000 * 1000 + 1000;
        now = m.link.next_change_ms(now).map_or(second, |at| at.min(second));
        at(&mut m, now);
        let lost = LinkEvent::Lost { addr: "127.0.0.1:7101".into(), why: "refused".into(), next_try_ms: 2_000 };
        assert_eq!(update(&mut m, Msg::Link(lost)), [], "no reason to leave");
        let text = screen(&m);
        let age = now - 10_000;
        stale_ms = stale_ms.or(text.contains("STALE").then_some(age));
        lost_ms = lost_ms.or(text.contains("MASTER LOST").then_some(age));
        let (place, tab) = if age / 1000 % 2 == 0 { ('2', "[2 Ring]") } else { ('4', "[4 Masters]") };
        keys(&mut m, &place.to_string());
        assert!(screen(&m).contains(tab), "the next frame shows what was asked for");
    }
    // A master says something at least every second, so half a second is left of 1.5 s, and a second of 4 s.
    assert_eq!((stale_ms, lost_ms), (Some(1_000), Some(3_000)));
    keys(&mut m, "1+");
    assert!(m.dialog.is_none() && screen(&m).contains("no master"), "actions say why not");

    // They are back: one that lags behind does not turn the picture back, the next view makes it live.
    update(&mut m, Msg::Link(LinkEvent::Connected { addr: "127.0.0.1:7101".into() }));
    view(&mut m, with(fixture::busy(), 7, 40));
    assert_eq!(shown(&m), (7, 42));
    assert!(screen(&m).contains("LOST") && !screen(&m).contains("epoch 40"));
    view(&mut m, with(fixture::busy(), 8, 43));
    let text = screen(&m);
    assert!(text.contains("LIVE") && text.contains("epoch 43") && !text.contains("MASTER LOST"));
}

#[test]
fn the_keys_that_help_names_answer_its_questions() {
    let mut m = busy();
    update(&mut m, Msg::Resize(120, 36));
    let screen = |m: &Model| to_text(&picture(m));
    keys(&mut m, "?");
    let help = screen(&m);
    for line in [
        "which node is hottest?      o o ",
        "where does a key live?      6 Enter ",
        "add a node; is it done?     + Enter Tab Enter ",
        "why did the master change?  4 ",
        "what happens if n2 dies?    Down Enter ",
    ] {
        assert!(help.contains(line), "{line:?} is in\n{help}");
    }
    keys(&mut m, "?");
    code(&mut m, KeyCode::Down);
    code(&mut m, KeyCode::Enter);
    let text = screen(&m);
    assert!(text.contains("Node n2") && text.contains("if it dies"), "{text}");
    code(&mut m, KeyCode::Esc);
    keys(&mut m, "4");
    assert!(screen(&m).contains("Who led when, and why it ended"));
}

#[test]
fn one_missed_heartbeat_is_a_dot_in_the_strip() {
    let mut m = model();
    update(&mut m, Msg::Resize(120, 36));
    let mut v = fixture::healthy();
    for n in &mut v.status.nodes {
        n.heartbeat_gaps_ms = vec![250; 24];
        n.heartbeat_age_ms = Some(100);
    }
    view(&mut m, v.clone());
    let dots =
        |m: &Model| to_text(&picture(m)).lines().filter(|l| l.contains("127.0.0.1:72") && l.contains('·')).count();
    assert_eq!(dots(&m), 0);
    v.status.nodes[1].heartbeat_gaps_ms[20] = 500;
    view(&mut m, v);
    assert_eq!(dots(&m), 1);
}

#[test]
fn a_released_key_is_no_second_press() {
    let mut m = busy();
    let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
    key.kind = KeyEventKind::Release;
    assert_eq!(update(&mut m, Msg::Key(key)), []);
}

#[test]
fn a_line_of_the_shell_means_the_same_in_the_palette() {
    let mut m = busy();
    keys(&mut m, ":cachectl masters");
    code(&mut m, KeyCode::Enter);
    assert_eq!(m.screen, Screen::Masters);
}
