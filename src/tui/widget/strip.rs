//! The heartbeat strip: one cell a beat, its height the timeliness, a dot for every beat that did not come. Drawn from
//! what the leader measured and nothing else, so that it can't be a picture of this screen's own redraws.

use ratatui::style::Style;

use crate::tui::theme::Look;

/// How often a node beats, milliseconds (PROTOCOL section 4).
pub const BEAT_MS: u64 = 250;
/// Half a beat of tolerance before one counts as missed.
const SLACK_MS: u64 = BEAT_MS / 2;
/// How late a beat may come at each height, milliseconds; the heights fall with it.
const LATE_MS: [(u64, usize); 5] = [(25, 5), (50, 4), (80, 3), (125, 2), (u64::MAX, 1)];

/// One cell of the strip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It came; place among the eight heights.
    Came(usize),
    /// It did not.
    Missed,
}

/// The last `cells` beats, oldest first: `gaps_ms` between heartbeats as the leader received them, `age_ms` since the
/// last one as the leader said it.
pub fn beats(gaps_ms: &[u64], age_ms: Option<u64>, cells: usize) -> Vec<Beat> {
    let mut out = Vec::new();
    for &gap in gaps_ms {
        missed(&mut out, gap, cells);
        // Lateness within its own beat: a beat after a pause is judged by the pause's dots, not twice.
        let late = if gap > BEAT_MS + SLACK_MS { u64::MAX } else { gap.saturating_sub(BEAT_MS) };
        let height = LATE_MS.iter().find(|(ms, _)| late <= *ms).map_or(1, |(_, h)| *h);
        out.push(Beat::Came(height));
    }
    missed(&mut out, age_ms.unwrap_or(0), cells);
    let surplus = out.len().saturating_sub(cells);
    out.drain(..surplus);
    out
}

/// Appends a dot for every beat that should have come before the one that ends `gap`; half a beat late is not missed.
fn missed(out: &mut Vec<Beat>, gap: u64, cells: usize) {
    let n = (gap.saturating_add(SLACK_MS) / BEAT_MS).saturating_sub(1);
    let n = usize::try_from(n).unwrap_or(cells).min(cells);
    out.extend(std::iter::repeat_n(Beat::Missed, n));
}

/// The strip as text pieces, right-aligned in `cells`: what is not known yet stays blank.
pub fn spans(beats: &[Beat], cells: usize, look: Look<'_>) -> Vec<(String, Style)> {
    let mut out = vec![(" ".repeat(cells.saturating_sub(beats.len())), Style::new())];
    for beat in beats {
        out.push(match *beat {
            Beat::Came(h) => {
                let style = match h {
                    4.. => look.theme.ok,
                    2 | 3 => look.theme.warn,
                    _ => look.theme.bad,
                };
                (look.glyph.levels[h.min(7)].to_string(), style)
            }
            Beat::Missed => (look.glyph.missed.to_string(), look.theme.bad),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use Beat::{Came, Missed};

    #[test]
    fn a_steady_node_draws_a_level_line() {
        assert_eq!(beats(&[250, 251, 249, 260], Some(80), 24), [Came(5); 4]);
        assert_eq!(beats(&[250; 24], Some(80), 8), [Came(5); 8], "the newest ones stay");
        assert_eq!(beats(&[], None, 8), []);
    }

    #[test]
    fn late_ones_are_lower_and_missed_ones_are_dots() {
        assert_eq!(beats(&[250, 312, 370], None, 24), [Came(5), Came(3), Came(2)]);
        assert_eq!(beats(&[250, 1000], None, 24), [Came(5), Missed, Missed, Missed, Came(1)]);
    }

    #[test]
    fn silence_is_dots_at_the_end() {
        let dots = |age| beats(&[250], Some(age), 24).iter().filter(|b| **b == Missed).count();
        assert_eq!(dots(80), 0);
        assert_eq!(dots(370), 0);
        assert_eq!(dots(380), 1);
        assert_eq!(dots(1250), 4, "suspect after five beats");
        assert_eq!(dots(1640), 6);
        assert_eq!(dots(u64::MAX), 24);
    }

    #[test]
    fn hostile_gaps_stay_in_the_strip() {
        assert_eq!(beats(&[u64::MAX, 0, u64::MAX], Some(u64::MAX), 8), [Missed; 8]);
        assert_eq!(beats(&[u64::MAX; 24], None, 0), []);
    }
}
