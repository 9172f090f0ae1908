//! The question before something that cannot be taken back.

use std::io::{BufRead, IsTerminal, Write};

use super::cmd::Ctx;
use super::error::CliError;

/// The longest answer that is read, bytes.
const ANSWER_MAX: u64 = 64;

/// Asks `[y/N]`. Without a terminal nobody can answer: refused, unless `--yes` did already.
pub fn confirm(ctx: &Ctx, question: &str) -> Result<(), CliError> {
    if ctx.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::refused("NOT_CONFIRMED", format!("nobody is there to answer: {question}"))
            .hint("say -y (--yes) if you mean it"));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = std::io::Read::take(std::io::stdin().lock(), ANSWER_MAX).read_line(&mut answer);
    if read.is_ok() && is_yes(&answer) {
        return Ok(());
    }
    Err(CliError::refused("DECLINED", "nothing was done").hint("answer y to go on, or say -y (--yes)"))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for yes in ["y\n", "Y", " yes \n", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yep", "ja", "y y"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
