//! How far a command is: one line that is redrawn on a terminal, else a line now and then.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Out;

/// How often progress is said where no line can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Ends what it draws when it goes.
pub struct Progress<'a> {
    way: Way<'a>,
}

enum Way<'a> {
    Bar(ProgressBar),
    Lines(&'a Out, Cell<Instant>),
}

impl<'a> Progress<'a> {
    /// Words only: nobody knows how much there is to do.
    pub fn spinner(out: &'a Out) -> Self {
        Self::new(out, ProgressBar::new_spinner, "{spinner:.green} {msg}", "{spinner} {msg}")
    }

    /// A gauge before the words.
    pub fn gauge(out: &'a Out) -> Self {
        Self::new(
            out,
            || ProgressBar::new(1),
            "{spinner:.green} [{bar:24.green/dim}] {percent:>3}%  {msg}",
            "{spinner} [{bar:24}] {percent:>3}%  {msg}",
        )
    }

    fn new(out: &'a Out, bar: impl FnOnce() -> ProgressBar, coloured: &str, plain: &str) -> Self {
        if out.quiet || !std::io::stderr().is_terminal() {
            return Self { way: Way::Lines(out, Cell::new(Instant::now())) };
        }
        let bar = bar();
        if let Ok(style) = ProgressStyle::with_template(if out.color_err() { coloured } else { plain }) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { way: Way::Bar(bar) }
    }

    /// How it stands now, in words.
    pub fn show(&self, text: &str) {
        match &self.way {
            Way::Bar(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
            Way::Lines(out, last) => {
                if last.get().elapsed() >= LINE_EVERY {
                    last.set(Instant::now());
                    out.say(text);
                }
            }
        }
    }

    /// How it stands now, in numbers and words.
    pub fn show_of(&self, done: u64, total: u64, text: &str) {
        match &self.way {
            Way::Bar(bar) => {
                bar.set_length(total.max(1));
                bar.set_position(if total == 0 { 0 } else { done.min(total) });
                self.show(text);
            }
            Way::Lines(..) => {
                let percent = (done.min(total) * 100).checked_div(total).unwrap_or(0);
                self.show(&format!("{percent:>3}%  {text}"));
            }
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Way::Bar(bar) = &self.way {
            bar.finish_and_clear();
        }
    }
}
