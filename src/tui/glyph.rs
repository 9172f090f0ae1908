//! The signs that are drawn: one set in Unicode, one in plain ASCII. Whatever a colour says, a sign says too.

use crate::proto::event::Severity;
use crate::proto::status::{Health, NodeState};

/// One set of signs. Every one but the strings takes exactly one cell.
#[derive(Debug, PartialEq, Eq)]
pub struct Glyphs {
    /// Nothing outside ASCII may be drawn.
    pub ascii: bool,
    /// Between the steps of a path.
    pub crumb: &'static str,
    /// What was cut off.
    pub more: char,
    /// The selected row.
    pub selected: char,
    /// Sort order, rising and falling.
    pub sort_up: char,
    /// Falling.
    pub sort_down: char,
    /// From one node to another.
    pub arrow: &'static str,
    /// Done or attained, and not.
    pub bar_on: char,
    /// The rest of a bar.
    pub bar_off: char,
    /// Eight rising heights.
    pub levels: [char; 8],
    /// A heartbeat that did not come.
    pub missed: char,
    /// Connected and current.
    pub live: char,
    /// Connected, the last view is old.
    pub stale: char,
    /// Not connected.
    pub lost: char,
    /// A good end, in messages.
    pub done: char,
    /// A warning, in messages and events.
    pub alert: char,
    /// Marks a line of a legend or chart: first and second series.
    pub series: [char; 2],
    /// Points at a place on the ring.
    pub pointer: char,
    /// Horizontal rule.
    pub rule: char,
}

/// For terminals that draw Unicode.
pub const UNICODE: Glyphs = Glyphs {
    ascii: false,
    crumb: "▸",
    more: '…',
    selected: '▸',
    sort_up: '▲',
    sort_down: '▼',
    arrow: "→",
    bar_on: '━',
    bar_off: '─',
    levels: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    missed: '·',
    live: '●',
    stale: '◐',
    lost: '✖',
    done: '✓',
    alert: '!',
    series: ['━', '┅'],
    pointer: '◆',
    rule: '─',
};

/// For all others, logs and screen readers.
pub const ASCII: Glyphs = Glyphs {
    ascii: true,
    crumb: ">",
    more: '~',
    selected: '>',
    sort_up: '^',
    sort_down: 'v',
    arrow: "->",
    bar_on: '#',
    bar_off: '-',
    levels: ['_', '_', '.', ':', '-', '=', '+', '#'],
    missed: '.',
    live: '*',
    stale: 'o',
    lost: 'x',
    done: '+',
    alert: '!',
    series: ['*', '.'],
    pointer: '@',
    rule: '-',
};

impl Glyphs {
    /// The sign of a node's state; each state has its own.
    pub fn node(&self, state: NodeState) -> char {
        let (unicode, ascii) = match state {
            NodeState::Standby => ('◇', 's'),
            NodeState::Joining => ('◆', '+'),
            NodeState::Up => ('●', '*'),
            NodeState::Suspect => ('◐', '?'),
            NodeState::Draining => ('◑', '-'),
            NodeState::Dead => ('✖', 'x'),
            NodeState::Left => ('○', 'o'),
        };
        if self.ascii { ascii } else { unicode }
    }

    /// The sign of a cluster's health.
    pub fn health(&self, health: Health) -> char {
        match health {
            Health::Ok => self.live,
            Health::Degraded => self.alert,
            Health::Down | Health::Unreachable => self.lost,
        }
    }

    /// The sign of an event; plain ones have none.
    pub fn severity(&self, severity: Severity) -> char {
        match severity {
            Severity::Info => ' ',
            Severity::Warn => self.alert,
            Severity::Error => self.lost,
        }
    }

    /// A bar of `cells`, `part` of `whole` filled. Something above nothing shows at least one cell, all but everything
    /// leaves at least one open: a bar never says "done" or "none" when it is not.
    pub fn bar(&self, cells: usize, part: f64, whole: f64) -> (String, String) {
        let share = part / whole;
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let mut on = (share * cells as f64).round() as usize;
        if share > 0.0 {
            on = on.max(1.min(cells));
        }
        if share < 1.0 && cells > 1 {
            on = on.min(cells - 1);
        }
        (self.bar_on.to_string().repeat(on), self.bar_off.to_string().repeat(cells - on))
    }

    /// A bar that compares rows: `part` of the longest, rounded; no claim that anything is done.
    pub fn share(&self, cells: usize, part: f64, longest: f64) -> (String, String) {
        let share = part / longest;
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let on = (share * cells as f64).round() as usize;
        (self.bar_on.to_string().repeat(on), self.bar_off.to_string().repeat(cells - on))
    }

    /// One sign whose height is `value` of `max`.
    pub fn level(&self, value: f64, max: f64) -> char {
        let share = value / max;
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self.levels[((share * 7.0).round() as usize).min(7)]
    }
}

/// The word for a node's state, as in `status`.
pub fn node_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Standby => "standby",
        NodeState::Joining => "joining",
        NodeState::Up => "up",
        NodeState::Suspect => "suspect",
        NodeState::Draining => "draining",
        NodeState::Dead => "dead",
        NodeState::Left => "left",
    }
}

/// The word for a cluster's health, loud.
pub fn health_word(health: Health) -> &'static str {
    match health {
        Health::Ok => "OK",
        Health::Degraded => "DEGRADED",
        Health::Down => "DOWN",
        Health::Unreachable => "UNREACHABLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_takes_one_cell() {
        for g in [&UNICODE, &ASCII] {
            let states = [
                NodeState::Standby,
                NodeState::Joining,
                NodeState::Up,
                NodeState::Suspect,
                NodeState::Draining,
                NodeState::Dead,
                NodeState::Left,
            ];
            let signs: Vec<char> = states.iter().map(|s| g.node(*s)).collect();
            let mut distinct = signs.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), states.len(), "states differ by sign, not only by colour");
            let rest = [g.more, g.selected, g.bar_on, g.bar_off, g.missed, g.live, g.stale, g.lost, g.done, g.pointer];
            for c in signs.into_iter().chain(rest).chain(g.levels) {
                assert_eq!(unicode_width::UnicodeWidthChar::width(c), Some(1), "{c}");
                assert!(!g.ascii || c.is_ascii());
            }
        }
    }

    #[test]
    fn a_bar_is_honest_at_its_ends() {
        let on = |part, whole| UNICODE.bar(8, part, whole).0.chars().count();
        assert_eq!(on(0.0, 100.0), 0);
        assert_eq!(on(0.1, 100.0), 1);
        assert_eq!(on(99.9, 100.0), 7);
        assert_eq!(on(100.0, 100.0), 8);
        assert_eq!(on(f64::NAN, 0.0), 0);
        assert_eq!(on(u64::MAX as f64, 1.0), 8);
    }
}
